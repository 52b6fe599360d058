//! Synchronous code reads from an async socket, and the event loop goes on.
//!
//! ```text
//! cargo run --release --example gzip_csv
//! ```
//!
//! A server sends a gzip-compressed CSV file over TCP. We read it with the crates `flate2` and
//! `csv`, which are synchronous: they call `Read::read` and expect it to return with data. The
//! socket is an async one, tokio's. All of it (the server, the socket, the decompression, and a
//! ticker that shows whether anybody holds things up) shares **one thread**.
//!
//! Without fiberback, `read` would either block the thread, and with it the server that it waits
//! for, or the reading would have to move to a thread of its own. With it, `read` suspends the
//! stack of synchronous calls it is at the bottom of, and the event loop goes on with the rest.

use std::cell::Cell;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// About 50 MB of text.
const ROWS: u64 = 1_000_000;
/// How often the ticker ticks.
const TICK: Duration = Duration::from_millis(5);

// --- The synchronous side. Nothing here is `async`. ------------------------------------------

/// How many rows there are, and a hash of all their fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) rows: u64,
    pub(crate) checksum: u64,
}

impl Summary {
    fn add<'a>(&mut self, fields: impl Iterator<Item = &'a str>) {
        self.rows += 1;
        for byte in fields.flat_map(str::bytes) {
            self.checksum = (self.checksum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Reads a compressed CSV file. Ordinary code, which would work the same on a `File`.
fn summarise(source: impl Read, rows_so_far: &Cell<u64>) -> Result<Summary, csv::Error> {
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(source));
    let mut record = csv::StringRecord::new();
    let mut summary = Summary::default();
    while reader.read_record(&mut record)? {
        summary.add(record.iter());
        rows_so_far.set(summary.rows);
    }
    Ok(summary)
}

/// A tokio socket for synchronous readers. This is the one place where the two worlds meet.
struct SyncSocket(TcpStream);

impl Read for SyncSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Decompressing keeps the thread busy: let the others have a turn before the next helping.
        fiberback::try_await(tokio::task::yield_now())?;
        // No data yet? Then everything from `fiberback::run` down to here is suspended until there
        // is. (`try_await` is `await_` for code that would rather return an error than be unwound
        // when it is cancelled.)
        fiberback::try_await(self.0.read(buffer))?
    }
}

// --- The asynchronous side. ------------------------------------------------------------------

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) summary: Summary,
    pub(crate) ticks: u64,
    pub(crate) longest_gap: Duration,
    pub(crate) took: Duration,
}

/// Serves `file` on a loopback socket and reads it back, with a ticker going.
pub(crate) async fn download(file: Vec<u8>) -> Result<Outcome, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = SyncSocket(TcpStream::connect(listener.local_addr()?).await?);
    let (served, _) = listener.accept().await?;
    let rows_so_far = Rc::new(Cell::new(0));
    let ticker = Rc::new(Ticker::default());

    let started = Instant::now();
    let tasks = LocalSet::new();
    let server = tasks.spawn_local(serve(served, file));
    let ticking = tasks.spawn_local(Rc::clone(&ticker).tick(Rc::clone(&rows_so_far)));

    // Here synchronous code becomes a future:
    let summary = fiberback::run(move || summarise(socket, &rows_so_far));

    let summary = tasks.run_until(summary).await?;
    ticking.abort();
    tasks.run_until(server).await??;
    Ok(Outcome {
        summary,
        ticks: ticker.ticks.get(),
        longest_gap: ticker.longest_gap.get(),
        took: started.elapsed(),
    })
}

/// Sends the file in pieces with a pause after each, as a slow network would.
async fn serve(mut socket: TcpStream, file: Vec<u8>) -> io::Result<()> {
    for piece in file.chunks(128 << 10) {
        socket.write_all(piece).await?;
        tokio::time::sleep(Duration::from_millis(12)).await;
    }
    socket.shutdown().await
}

/// Somebody else on the event loop, who notices when it is held up.
#[derive(Debug, Default)]
struct Ticker {
    ticks: Cell<u64>,
    longest_gap: Cell<Duration>,
}

impl Ticker {
    async fn tick(self: Rc<Self>, rows_so_far: Rc<Cell<u64>>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.tick().await;
        let mut last = Instant::now();
        let mut reported = last;
        loop {
            interval.tick().await;
            let now = Instant::now();
            self.ticks.set(self.ticks.get() + 1);
            self.longest_gap.set(self.longest_gap.get().max(now - last));
            last = now;
            if now - reported >= Duration::from_millis(250) {
                println!("  tick {:>3}, {:>9} rows so far", self.ticks.get(), rows_so_far.get());
                reported = now;
            }
        }
    }
}

/// A compressed CSV file of so many rows, always the same, its size as text, and what reading it
/// must find.
pub(crate) fn generate(rows: u64) -> io::Result<(Vec<u8>, u64, Summary)> {
    let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut expected = Summary::default();
    let mut text_size = 0;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut line = String::from("id,station,celsius,hectopascal,remark\n");
    for id in 0..rows {
        text_size += line.len() as u64;
        file.write_all(line.as_bytes())?;
        // Xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (station, celsius) = (random % 997, (random >> 10) % 600);
        let (pressure, remark) = (950 + (random >> 20) % 100, random >> 40);
        line.clear();
        writeln!(
            line,
            "{id},station-{station:03},{}.{},{pressure},remark {remark:08}",
            celsius / 10,
            celsius % 10
        )
        .map_err(io::Error::other)?;
        expected.add(line.trim_end().split(','));
    }
    text_size += line.len() as u64;
    file.write_all(line.as_bytes())?;
    Ok((file.finish()?, text_size, expected))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    println!("Making a CSV file of {ROWS} rows ...");
    let (file, text_size, expected) = generate(ROWS)?;
    println!(
        "{:.1} MB, gzipped {:.1} MB. Reading it with the synchronous crates `flate2` and `csv`\n\
         from an async TCP stream, with everything on one thread:",
        text_size as f64 / 1e6,
        file.len() as f64 / 1e6
    );

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(download(file))?;

    let intact = outcome.summary == expected;
    println!(
        "rows         {}\n\
         checksum     {:016x} ({})\n\
         time         {:.2} s\n\
         ticks        {}, one every {} ms if nobody holds up the event loop\n\
         longest gap  {:.1} ms between two ticks",
        outcome.summary.rows,
        outcome.summary.checksum,
        if intact { "as it must be" } else { "WRONG" },
        outcome.took.as_secs_f64(),
        outcome.ticks,
        TICK.as_millis(),
        outcome.longest_gap.as_secs_f64() * 1e3,
    );
    Ok(if intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
