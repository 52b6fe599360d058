//! `fiberback::io`: synchronous crates over async sources, and back.
#![cfg(feature = "io")]

mod io_support;

use fiberback::io::{AsyncReader, AsyncWriter, SyncIo, Yielding, await_error};
use fiberback::{AwaitError, Budget, Builder, StackPool, await_, run};
use io_support::{Census, Choppy, Random, Shared, cut_off_everywhere, drive, seeds, text};
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::io::{self, BufRead, BufReader, BufWriter, Cursor, IoSlice, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

// --- The synchronous code under test: other people's crates. ---------------------------------------

type ReadFn = fn(&mut dyn Read) -> io::Result<Vec<u8>>;
type WriteFn = fn(&mut dyn Write) -> io::Result<()>;

const SIZE: usize = 6_000;

fn gzipped() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_gzip(&mut bytes).unwrap();
    bytes
}

fn read_gzip(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(source).read_to_end(&mut plain)?;
    Ok(plain)
}

fn write_gzip(sink: &mut dyn Write) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(sink, flate2::Compression::fast());
    encoder.write_all(&text(1, SIZE))?;
    encoder.flush()?;
    encoder.write_all(&text(2, SIZE))?;
    encoder.finish()?.flush()
}

/// `csv::Error` has no `source`; the cause is in its kind.
fn csv_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn read_csv(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut rows = Vec::new();
    for record in csv::Reader::from_reader(source).into_records() {
        let record = record.map_err(csv_error)?;
        rows.extend_from_slice(format!("{record:?}\n").as_bytes());
    }
    Ok(rows)
}

fn write_csv(sink: &mut dyn Write) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().buffer_capacity(64).from_writer(sink);
    let mut random = Random::new(3);
    writer.write_record(["id", "name", "remark"]).map_err(csv_error)?;
    for id in 0..120 {
        let remark = format!("a \"quoted\", {}\nremark", random.below(1000));
        writer.write_record([&id.to_string(), "row", &remark]).map_err(csv_error)?;
    }
    writer.flush()
}

fn read_tar(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut archive = tar::Archive::new(source);
    let mut all = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        all.extend_from_slice(entry.path_bytes().as_ref());
        entry.read_to_end(&mut all)?;
    }
    Ok(all)
}

fn write_tar(sink: &mut dyn Write) -> io::Result<()> {
    let mut builder = tar::Builder::new(sink);
    for (index, size) in [100, 0, 2_000].into_iter().enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        let data = text(index as u64, size as usize);
        builder.append_data(&mut header, format!("dir/file{index}"), &data[..])?;
    }
    builder.into_inner()?.flush()
}

fn read_zip_stream(mut source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(mut file) = zip::read::read_zipfile_from_stream(&mut source)? {
        all.extend_from_slice(file.name().as_bytes());
        file.read_to_end(&mut all)?;
    }
    Ok(all)
}

fn zipped() -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (index, size) in [3_000, 1, 500].into_iter().enumerate() {
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file(format!("file{index}"), options).unwrap();
        writer.write_all(&text(index as u64, size)).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

fn read_zip(source: &mut dyn ReadSeek) -> io::Result<Vec<u8>> {
    let mut archive = zip::ZipArchive::new(source)?;
    let mut all = Vec::new();
    for index in (0..archive.len()).rev() {
        let mut file = archive.by_index(index)?;
        all.extend_from_slice(file.name().as_bytes());
        file.read_to_end(&mut all)?;
    }
    Ok(all)
}

fn read_json(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let value: serde_json::Value = serde_json::from_reader(source)?;
    Ok(value.to_string().into_bytes())
}

fn write_json(mut sink: &mut dyn Write) -> io::Result<()> {
    let words: Vec<String> =
        text(9, 1_500).split(|&b| b == b' ').map(|w| String::from_utf8_lossy(w).into()).collect();
    serde_json::to_writer(&mut sink, &serde_json::json!({ "words": words, "n": 1.5, "x": null }))?;
    sink.flush()
}

fn read_lines(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for line in BufReader::with_capacity(100, source).lines() {
        all.extend_from_slice(line?.as_bytes());
    }
    Ok(all)
}

fn write_buffered(sink: &mut dyn Write) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(300, sink);
    for line in text(5, SIZE).chunks(71) {
        writer.write_all(line)?;
        writer.write_all(b"\n")?;
    }
    writer.flush()
}

fn written(write: WriteFn) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    bytes
}

fn readers() -> Vec<(&'static str, Vec<u8>, ReadFn)> {
    vec![
        ("gzip", gzipped(), read_gzip),
        ("csv", written(write_csv), read_csv),
        ("tar", written(write_tar), read_tar),
        ("zip stream", zipped(), read_zip_stream),
        ("json", written(write_json), read_json),
        ("lines", written(write_buffered), read_lines),
    ]
}

const WRITERS: [(&str, WriteFn); 5] = [
    ("gzip", write_gzip),
    ("csv", write_csv),
    ("tar", write_tar),
    ("json", write_json),
    ("lines", write_buffered),
];

// --- The same bytes as the blocking originals. ------------------------------------------------------

#[test]
fn crates_read_the_same_in_random_pieces() {
    for (name, bytes, read) in readers() {
        let expected = read(&mut &bytes[..]).unwrap();
        assert!(expected.len() > 1000, "{name}");
        for seed in 0..30 {
            let source = Choppy::new(Cursor::new(bytes.clone()), seed, 1 + 40 * seed as usize);
            let result = drive(run(move || read(&mut SyncIo::new(source))));
            assert_eq!(result.unwrap(), expected, "{name}, seed {seed}");
        }
    }
}

#[test]
fn crates_write_the_same_in_random_pieces() {
    for (name, write) in WRITERS {
        let expected = written(write);
        for seed in 0..30 {
            let sink = Choppy::new(Vec::new(), seed, 1 + 40 * seed as usize);
            let sink = drive(run(move || {
                let mut sink = SyncIo::new(sink);
                write(&mut sink)?;
                Ok::<_, io::Error>(sink.into_inner().inner)
            }));
            assert_eq!(sink.unwrap(), expected, "{name}, seed {seed}");
        }
    }
}

#[test]
fn zip_seeks_in_random_pieces() {
    let bytes = zipped();
    let expected = read_zip(&mut Cursor::new(&bytes)).unwrap();
    for seed in 0..30 {
        let source = Choppy::new(Cursor::new(bytes.clone()), seed, 1 + 40 * seed as usize);
        let result = drive(run(move || read_zip(&mut SyncIo::new(source))));
        assert_eq!(result.unwrap(), expected, "seed {seed}");
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[tokio::test]
async fn crates_read_the_same_over_tcp_as_blocking_ones() {
    for (name, bytes, read) in readers() {
        // The blocking original: a std socket on a thread.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let blocking = std::thread::spawn(move || {
            read(&mut std::net::TcpStream::connect(address).unwrap()).unwrap()
        });
        listener.accept().unwrap().0.write_all(&bytes).unwrap();
        let expected = blocking.join().unwrap();

        let (near, mut far) = tcp_pair().await;
        let reading = run(move || read(&mut SyncIo::new(near)));
        let sending = async move {
            for (index, piece) in bytes.chunks(700).enumerate() {
                far.write_all(piece).await.unwrap();
                if index % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let (result, ()) = tokio::join!(reading, sending);
        assert_eq!(result.unwrap(), expected, "{name}");
    }
}

#[tokio::test]
async fn crates_write_the_same_over_tcp() {
    for (name, write) in WRITERS {
        let (near, mut far) = tcp_pair().await;
        let writing = run(move || {
            let mut near = SyncIo::new(near);
            write(&mut near)?;
            near.shutdown()
        });
        let mut bytes = Vec::new();
        let (result, received) = tokio::join!(writing, far.read_to_end(&mut bytes));
        result.unwrap();
        received.unwrap();
        assert_eq!(bytes, written(write), "{name}");
    }
}

#[tokio::test]
async fn files_read_write_and_seek() {
    let path = std::env::temp_dir().join(format!("fiberback-io-{}", std::process::id()));
    let mut options = tokio::fs::File::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&path).await.unwrap();
    let result: io::Result<()> = run(move || {
        let mut file = SyncIo::new(file);
        file.write_all(&zipped())?;
        file.flush()?;
        assert_eq!(file.stream_position()?, zipped().len() as u64);
        file.rewind()?;
        assert_eq!(read_zip(&mut file)?, read_zip(&mut Cursor::new(zipped()))?);
        assert_eq!(file.seek(SeekFrom::End(-4))?, zipped().len() as u64 - 4);
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        assert_eq!(tail, zipped()[zipped().len() - 4..]);
        Ok(())
    })
    .await;
    std::fs::remove_file(path).unwrap();
    result.unwrap();
}

#[test]
fn buf_read_uses_the_sources_own_buffer() {
    let bytes = text(7, 5_000);
    let expected = bytes.clone();
    for seed in 0..20 {
        let source = Choppy::new(Cursor::new(bytes.clone()), seed, 300);
        let words =
            drive(run(move || SyncIo::new(source).split(b' ').collect::<io::Result<Vec<_>>>()));
        assert_eq!(words.unwrap().join(&b' '), expected.strip_suffix(b" ").unwrap_or(&expected));
    }
}

#[test]
fn vectored_writes_are_one_operation() {
    /// Takes everything, and counts the calls.
    struct Vectored(Vec<u8>, usize);
    impl AsyncWrite for Vectored {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            unreachable!("not vectored")
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.1 += 1;
            slices.iter().for_each(|slice| self.0.extend_from_slice(slice));
            Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let sink = drive(run(|| {
        let mut sink = SyncIo::new(Vectored(Vec::new(), 0));
        assert!(sink.is_write_vectored());
        let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
        assert_eq!(sink.write_vectored(&slices).unwrap(), 7);
        sink.into_inner()
    }));
    assert_eq!((&sink.0[..], sink.1), (&b"one two"[..], 1));
}

#[test]
fn read_to_end_appends_and_counts() {
    let result = drive(run(|| {
        let mut source = SyncIo::new(Choppy::new(Cursor::new(text(8, 70_000)), 8, 9_000));
        let mut bytes = b"before".to_vec();
        assert_eq!(source.read_to_end(&mut bytes)?, 70_000);
        assert_eq!(source.read_to_end(&mut bytes)?, 0);
        Ok::<_, io::Error>(bytes)
    }));
    assert_eq!(result.unwrap(), [&b"before"[..], &text(8, 70_000)].concat());
}

// --- TLS: a synchronous protocol in both directions. ------------------------------------------------

fn tls() -> (Arc<rustls::ClientConfig>, Arc<rustls::ServerConfig>) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(signed.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server))
}

/// A synchronous server that sends session tickets while its client only writes needs a pipe that
/// holds them; with a smaller one the blocking originals would deadlock, too.
const TLS_PIPE: usize = 2_000;

/// Sends a length and a text, gets the text back in upper case.
fn tls_client(
    config: Arc<rustls::ClientConfig>,
    socket: impl Read + Write,
    request: &[u8],
) -> io::Result<Vec<u8>> {
    let name = "localhost".try_into().unwrap();
    let session = rustls::ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut stream = rustls::StreamOwned::new(session, socket);
    stream.write_all(&(request.len() as u32).to_be_bytes())?;
    stream.write_all(request)?;
    stream.flush()?;
    let mut answer = vec![0; request.len()];
    stream.read_exact(&mut answer)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(answer)
}

fn tls_server(config: Arc<rustls::ServerConfig>, socket: impl Read + Write) -> io::Result<()> {
    let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = rustls::StreamOwned::new(session, socket);
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut request = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut request)?;
    request.make_ascii_uppercase();
    stream.write_all(&request)?;
    stream.flush()?;
    // Until the peer closes.
    stream.read(&mut [0]).map(drop)
}

#[tokio::test]
async fn rustls_over_tcp() {
    let (client, server) = tls();
    let request = text(11, 100_000);
    let expected = request.to_ascii_uppercase();

    // Our client against the blocking server, and the other way round, and against each other.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::clone(&server);
    let thread =
        std::thread::spawn(move || tls_server(config, listener.accept().unwrap().0).unwrap());
    let socket = TcpStream::connect(address).await.unwrap();
    let (config, words) = (Arc::clone(&client), request.clone());
    let answer = run(move || tls_client(config, SyncIo::new(socket), &words)).await;
    assert_eq!(answer.unwrap(), expected);
    thread.join().unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (config, words) = (Arc::clone(&client), request.clone());
    let thread = std::thread::spawn(move || {
        tls_client(config, std::net::TcpStream::connect(address).unwrap(), &words).unwrap()
    });
    let socket = listener.accept().await.unwrap().0;
    let config = Arc::clone(&server);
    run(move || tls_server(config, SyncIo::new(socket))).await.unwrap();
    assert_eq!(thread.join().unwrap(), expected);

    let (near, far) = tcp_pair().await;
    let (answer, served) = tokio::join!(
        run(move || tls_client(client, SyncIo::new(near), &request)),
        run(move || tls_server(server, SyncIo::new(far))),
    );
    assert_eq!(answer.unwrap(), expected);
    served.unwrap();
}

#[test]
fn rustls_in_random_pieces() {
    let (client, server) = tls();
    for seed in 0..20 {
        let (near, far) = tokio::io::duplex(TLS_PIPE + 50 * seed as usize);
        let (client, server) = (Arc::clone(&client), Arc::clone(&server));
        let both = async move {
            let near = SyncIo::new(Choppy::new(near, seed, 500));
            let far = SyncIo::new(Choppy::new(far, !seed, 500));
            tokio::join!(
                run(move || tls_client(client, near, &text(seed, 3_000))),
                run(move || tls_server(server, far)),
            )
        };
        let (answer, served) = drive(both);
        assert_eq!(answer.unwrap(), text(seed, 3_000).to_ascii_uppercase(), "seed {seed}");
        served.unwrap();
    }
}

// --- Cancellation at every possible point. ----------------------------------------------------------

/// What the synchronous code saw.
#[derive(Clone, Default)]
struct Seen(Rc<RefCell<Vec<String>>>);

impl Seen {
    fn note<T>(&self, result: &io::Result<T>) {
        if let Err(error) = result {
            assert_ne!(error.kind(), io::ErrorKind::Interrupted);
            self.0.borrow_mut().push(match await_error(error) {
                Some(error) if error.is_cancelled() => "cancelled".into(),
                _ => format!("{error:?}"),
            });
        }
    }
}

#[test]
fn cancelled_reading_leaks_nothing() {
    let mut cuts = 0;
    for (name, bytes, read) in readers() {
        let (census, seen) = (Census::default(), Seen::default());
        let pool = StackPool::builder().build().unwrap();
        for seed in seeds(3) {
            println!("{name}, seed {seed}");
            let make = || {
                let source = Choppy::new(Cursor::new(bytes.clone()), seed, 400).counted(&census);
                let seen = seen.clone();
                let reading = move || seen.note(&read(&mut SyncIo::new(source)));
                Builder::new().pool(&pool).run(reading).unwrap()
            };
            cuts += cut_off_everywhere(make, || {
                assert_eq!((census.alive(), pool.stats().in_use), (0, 0), "{name}");
            });
        }
        // Everything but the cancellations ended well, and each of those was seen as such.
        assert!(seen.0.borrow().iter().all(|seen| seen == "cancelled"), "{name}: {:?}", seen.0);
    }
    println!("reading was cut off at {cuts} points");
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn cancelled_writing_leaks_nothing() {
    let mut cuts = 0;
    for (name, write) in WRITERS {
        let (census, seen) = (Census::default(), Seen::default());
        let expected = written(write);
        for seed in seeds(3) {
            println!("{name}, seed {seed}");
            let target = RefCell::new(Shared::new(Vec::new()));
            let make = || {
                *target.borrow_mut() = Shared::new(Vec::new());
                let sink = Choppy::new(target.borrow().clone(), seed, 400).counted(&census);
                let seen = seen.clone();
                run(move || seen.note(&write(&mut SyncIo::new(sink))))
            };
            cuts += cut_off_everywhere(make, || {
                assert_eq!(census.alive(), 0, "{name}");
                // What arrived is a piece of what was to arrive, nothing twice or out of order.
                let arrived = target.borrow().0.borrow().clone();
                assert!(arrived.len() <= expected.len());
                if name != "gzip" && name != "tar" {
                    // (Those two write a proper end when dropped, where they can.)
                    assert!(expected.starts_with(&arrived), "{name}");
                }
            });
            assert_eq!(*target.borrow().0.borrow(), expected, "{name}");
        }
        assert!(seen.0.borrow().iter().all(|seen| seen == "cancelled"), "{name}: {:?}", seen.0);
    }
    println!("writing was cut off at {cuts} points");
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn a_cancelled_read_has_taken_nothing() {
    let bytes = text(21, 4_000);
    for seed in seeds(20) {
        println!("seed {seed}");
        let mut cuts = 0;
        // Cut off after so many polls, another fiber goes on from there, and so on.
        let source = Shared::new(Choppy::new(Cursor::new(bytes.clone()), seed, 90));
        let got = Rc::new(RefCell::new(Vec::new()));
        let mut random = Random::new(seed);
        loop {
            let (source, got) = (source.clone(), got.clone());
            let mut reading = run(move || -> io::Result<()> {
                let mut source = SyncIo::new(source);
                let mut buffer = [0; 100];
                loop {
                    let count = source.read(&mut buffer)?;
                    if count == 0 {
                        return Ok(());
                    }
                    got.borrow_mut().extend_from_slice(&buffer[..count]);
                }
            });
            let polls = 1 + random.below(4);
            let ready = (0..polls).find_map(|_| {
                match Pin::new(&mut reading).poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                }
            });
            if let Some(result) = ready {
                result.unwrap();
                break;
            }
            cuts += 1;
        }
        assert_eq!(*got.borrow(), bytes, "seed {seed}");
        assert!(cuts > 5, "{cuts}");
    }
}

#[test]
fn a_cancelled_write_has_written_nothing() {
    let bytes: &'static [u8] = text(22, 4_000).leak();
    for seed in seeds(20) {
        println!("seed {seed}");
        let mut cuts = 0;
        let sink = Shared::new(Choppy::new(Vec::new(), seed, 90));
        let sent = Rc::new(Cell::new(0));
        let mut random = Random::new(seed);
        loop {
            let (sink, sent) = (sink.clone(), sent.clone());
            let mut writing = run(move || -> io::Result<()> {
                let mut sink = SyncIo::new(sink);
                while sent.get() < bytes.len() {
                    sent.set(sent.get() + sink.write(&bytes[sent.get()..])?);
                }
                Ok(())
            });
            let polls = 1 + random.below(4);
            let ready = (0..polls).any(|_| {
                Pin::new(&mut writing).poll(&mut Context::from_waker(Waker::noop())).is_ready()
            });
            if ready {
                break;
            }
            cuts += 1;
        }
        assert_eq!(sink.0.borrow().inner, bytes, "seed {seed}");
        assert!(cuts > 5, "{cuts}");
    }
}

#[test]
fn cancelled_tls_lets_the_peer_end() {
    let (client, server) = tls();
    let census = Census::default();
    let mut served = Vec::new();
    let mut cuts = 0;
    for k in 1.. {
        let (near, far) = tokio::io::duplex(TLS_PIPE);
        let near = SyncIo::new(Choppy::new(near, 1, 100).counted(&census));
        let far = SyncIo::new(Choppy::new(far, 2, 100).counted(&census));
        let (config, other) = (Arc::clone(&client), Arc::clone(&server));
        let mut asking = run(move || tls_client(config, near, &text(1, 1_000)));
        let mut serving = run(move || tls_server(other, far));
        let mut context = Context::from_waker(Waker::noop());
        let mut answer = Poll::Pending;
        let mut early = Poll::Pending;
        for _ in 0..k {
            answer = Pin::new(&mut asking).poll(&mut context);
            if early.is_pending() {
                early = Pin::new(&mut serving).poll(&mut context);
            }
            if answer.is_ready() {
                break;
            }
        }
        drop(asking);
        // Whatever the point, the peer is told, and ends; with an error unless all was said.
        served.push(match early {
            Poll::Ready(result) => result,
            Poll::Pending => drive(serving),
        });
        assert_eq!(census.alive(), 0);
        if let Poll::Ready(answer) = answer {
            assert_eq!(answer.unwrap(), text(1, 1_000).to_ascii_uppercase());
            served.pop().unwrap().unwrap();
            break;
        }
        cuts += 1;
    }
    println!("TLS was cut off at {cuts} points");
    assert!(cuts > 20, "{cuts}");
    let broken = served.iter().filter_map(|result| result.as_ref().err());
    assert!(broken.clone().count() > 10);
    for error in broken {
        let kind = error.kind();
        let cut = matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe);
        assert!(cut, "{error:?}");
    }
}

/// Open file descriptors that are sockets or regular temporary files.
#[cfg(target_os = "linux")]
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().contains("fiberback-fds"))
        .count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn cancelled_connections_and_files_are_closed() {
    let path = std::env::temp_dir().join(format!("fiberback-fds-{}", std::process::id()));
    let payload = written(write_buffered);
    let mut random = Random::new(31);
    let mut eofs = 0;
    const ROUNDS: usize = 150;
    for _ in 0..ROUNDS {
        let (near, mut far) = tcp_pair().await;
        let file = tokio::fs::File::create(&path).await.unwrap();
        assert_eq!(open_descriptors(), 1);
        let mut copying = run(move || {
            let mut file = BufWriter::new(SyncIo::new(file));
            io::copy(&mut SyncIo::new(near), &mut file)?;
            file.flush()
        });
        let mut polls = random.below(12);
        let pieces = payload.chunks(1 + random.below(2_000));
        let sending = async {
            for piece in pieces {
                if far.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let cut = std::future::poll_fn(|context| {
            if polls == 0 {
                return Poll::Ready(());
            }
            polls -= 1;
            let _ = Pin::new(&mut copying).poll(context);
            context.waker().wake_by_ref();
            Poll::Pending
        });
        tokio::join!(cut, sending);
        drop(copying);
        // The peer sees the connection closed (or reset, with bytes unread).
        match far.read(&mut [0]).await {
            Ok(0) => eofs += 1,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => eofs += 1,
            other => panic!("{other:?}"),
        }
        // tokio closes a file on its blocking pool, after what it still had to write.
        for _ in 0..2_000 {
            if open_descriptors() == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(open_descriptors(), 0);
    }
    assert_eq!(eofs, ROUNDS);
    std::fs::remove_file(path).unwrap();
}

/// Pending for ever, once it has taken so many bytes.
struct Clogged(usize);

impl AsyncWrite for Clogged {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0 == 0 {
            return Poll::Pending;
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Poll::Ready(Ok(taken))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

fn pending<F: Future>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[test]
fn a_buf_writer_is_dropped_in_peace() {
    let ended = Rc::new(Cell::new(0));
    // Waiting in the writer itself: an error, so the code returns.
    let mut writing = Box::pin(run({
        let ended = ended.clone();
        move || {
            let mut writer = BufWriter::with_capacity(10, SyncIo::new(Clogged(15)));
            let error = (0..).find_map(|_| writer.write_all(b"0123456").err()).unwrap();
            assert!(await_error(&error).unwrap().is_cancelled());
            ended.set(ended.get() + 1);
            drop(writer);
            ended.set(ended.get() + 1);
        }
    }));
    assert!(pending(writing.as_mut()));
    drop(writing);
    assert_eq!(ended.get(), 2);

    // Waiting elsewhere: the stack is unwound over a writer that has something to flush, into a
    // sink that is ready, and into one that is not.
    for room in [100, 0] {
        let census = Census::default();
        let citizen = census.enter();
        let mut waiting = Box::pin(run(move || {
            let _citizen = citizen;
            let mut writer = BufWriter::new(SyncIo::new(Clogged(room)));
            writer.write_all(b"unflushed").unwrap();
            await_(std::future::pending::<()>());
        }));
        assert!(pending(waiting.as_mut()));
        drop(waiting);
        assert_eq!(census.alive(), 0);
    }

    // A panic over such a writer stays that panic.
    let mut panicking = Box::pin(run(|| {
        let mut writer = BufWriter::new(SyncIo::new(Clogged(0)));
        writer.write_all(b"unflushed").unwrap();
        panic!("on purpose");
    }));
    let payload = catch_unwind(AssertUnwindSafe(|| pending(panicking.as_mut()))).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
}

#[test]
fn errors_hold_the_await_error_and_are_not_retried() {
    // Off a fiber. `read_to_end` and `write_all` would spin on `Interrupted`.
    let mut source = SyncIo::new(Cursor::new(b"bytes".to_vec()));
    let errors = [
        source.read(&mut [0]).unwrap_err(),
        source.read_to_end(&mut Vec::new()).unwrap_err(),
        source.read_exact(&mut [0]).unwrap_err(),
        source.write_all(b"x").unwrap_err(),
        source.write_vectored(&[IoSlice::new(b"x")]).unwrap_err(),
        source.flush().unwrap_err(),
        source.fill_buf().map(drop).unwrap_err(),
        source.seek(SeekFrom::Start(0)).unwrap_err(),
        source.stream_position().unwrap_err(),
        source.shutdown().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), io::ErrorKind::Other);
        let cause = error.source().unwrap().downcast_ref::<AwaitError>().unwrap();
        assert!(cause.is_off_fiber());
        assert!(error.to_string().contains("fiberback::run"), "{error}");
    }
    assert_eq!(source.get_ref().get_ref(), b"bytes", "touched off a fiber");

    // Inside what other crates make of it.
    let off_fiber = || SyncIo::new(tokio::io::empty());
    let csv = csv::Reader::from_reader(off_fiber()).into_records().next().unwrap().unwrap_err();
    let csv = csv_error(csv);
    let json = serde_json::from_reader::<_, u8>(off_fiber()).unwrap_err();
    let zip = zip::ZipArchive::new(SyncIo::new(Cursor::new(vec![]))).unwrap_err();
    let gzip = flate2::read::GzDecoder::new(off_fiber()).read(&mut [0]).unwrap_err();
    let tar = tar::Archive::new(off_fiber()).entries().unwrap().next().unwrap().err().unwrap();
    let errors: [(&str, &(dyn Error + 'static)); 5] =
        [("csv", &csv), ("json", &json), ("zip", &zip), ("gzip", &gzip), ("tar", &tar)];
    for (name, error) in errors {
        assert!(await_error(error).is_some_and(|e| e.is_off_fiber()), "{name}: {error:?}");
    }
}

#[test]
fn all_operations_after_a_cancellation_are_refused() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = seen.clone();
    let mut reading = Box::pin(run(move || {
        let (near, _far) = tokio::io::duplex(10);
        let mut near = SyncIo::new(near);
        for _ in 0..3 {
            let error = near.read_to_end(&mut Vec::new()).unwrap_err();
            log.borrow_mut().push(await_error(&error).unwrap().is_cancelled());
        }
        // Ready or not.
        log.borrow_mut().push(near.write(b"x").is_err());
    }));
    assert!(pending(reading.as_mut()));
    drop(reading);
    assert_eq!(*seen.borrow(), [true; 4]);
}

#[test]
fn ready_operations_do_not_switch() {
    // One poll does it all.
    let mut reading = pin!(run(|| {
        let mut source = SyncIo::new(Cursor::new(vec![7; 100_000]));
        let mut buffer = [0; 100];
        let mut total = 0;
        loop {
            match source.read(&mut buffer)? {
                0 => break,
                count => total += count,
            }
        }
        source.rewind()?;
        source.write_all(&[8; 1000])?;
        source.rewind()?;
        total += source.skip_until(9)?;
        Ok::<_, io::Error>(total)
    }));
    let Poll::Ready(total) = reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("switched");
    };
    assert_eq!(total.unwrap(), 200_000);
}

// --- The other way: async traits over synchronous code. ----------------------------------------------

#[test]
fn sync_readers_as_async_ones() {
    for (name, bytes, read) in readers() {
        let expected = read(&mut &bytes[..]).unwrap();
        for seed in 0..20 {
            let source = Choppy::new(Cursor::new(bytes.clone()), seed, 300);
            // Async over sync over async, read by sync again.
            let gunzip = name == "gzip";
            let result = drive(async move {
                let mut reader: AsyncReader<Box<dyn Read>> = AsyncReader::open(move || {
                    let source = SyncIo::new(source);
                    Ok(if gunzip {
                        Box::new(flate2::read::GzDecoder::new(source)) as Box<dyn Read>
                    } else {
                        Box::new(source)
                    })
                })
                .with_capacity(1 + 37 * seed as usize);
                if gunzip {
                    let mut plain = Vec::new();
                    reader.read_to_end(&mut plain).await?;
                    return Ok(plain);
                }
                run(move || read(&mut SyncIo::new(reader))).await
            });
            assert_eq!(result.unwrap(), expected, "{name}, seed {seed}");
        }
    }
}

#[test]
fn sync_writers_as_async_ones() {
    for seed in 0..40 {
        let plain = text(seed, 10_000);
        let compressed = Shared::new(Vec::new());
        let sink = Choppy::new(compressed.clone(), seed, 100);
        let encoder = flate2::write::GzEncoder::new(SyncIo::new(sink), Default::default());
        let mut writer = AsyncWriter::new(encoder)
            .with_capacity(1 + 61 * seed as usize)
            .on_shutdown(|encoder| {
                encoder.try_finish()?;
                encoder.get_mut().shutdown()
            });
        let mut random = Random::new(seed);
        let source = plain.clone();
        drive(async {
            let mut rest = &source[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((1 + random.below(900)).min(rest.len()));
                let (one, two) = piece.split_at(piece.len() / 2);
                match random.below(3) {
                    0 => writer.write_all(piece).await?,
                    1 => {
                        let mut both = Cursor::new([one, two].concat());
                        writer.write_all_buf(&mut both).await?;
                    }
                    _ => {
                        let slices = [IoSlice::new(one), IoSlice::new(two)];
                        let taken = writer.write_vectored(&slices).await?;
                        writer.write_all(&piece[taken..]).await?;
                    }
                }
                if random.below(5) == 0 {
                    writer.flush().await?;
                }
                rest = after;
            }
            writer.shutdown().await?;
            writer.shutdown().await?;
            assert_eq!(writer.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            Ok::<_, io::Error>(())
        })
        .unwrap();
        let compressed = compressed.0.borrow();
        assert_eq!(read_gzip(&mut &compressed[..]).unwrap(), plain, "seed {seed}");
    }
}

#[tokio::test]
async fn tls_stream_as_an_async_one() {
    // A synchronous TLS session, used by async code in one direction.
    let (client, server) = tls();
    let (near, far) = tcp_pair().await;
    let sent = text(41, 50_000);
    let mut writer = AsyncWriter::new(rustls::StreamOwned::new(
        rustls::ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap(),
        SyncIo::new(near),
    ))
    .on_shutdown(|stream| {
        stream.conn.send_close_notify();
        stream.flush()?;
        stream.sock.shutdown()
    });
    let mut reader = AsyncReader::new(rustls::StreamOwned::new(
        rustls::ServerConnection::new(server).unwrap(),
        SyncIo::new(far),
    ));
    let mut got = Vec::new();
    let send = async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    };
    tokio::try_join!(send, reader.read_to_end(&mut got)).unwrap();
    assert_eq!(got, sent);
}

#[test]
fn an_async_reader_reads_on_demand() {
    /// Gives one byte more each time, and counts the calls.
    struct Steps(Rc<Cell<usize>>);
    impl Read for Steps {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(fiberback::on_fiber());
            assert_eq!(buffer.len(), 100);
            fiberback::yield_now();
            self.0.set(self.0.get() + 1);
            match self.0.get() {
                3 => Err(io::ErrorKind::Interrupted.into()),
                5 => Err(io::Error::other("the fifth")),
                calls => {
                    buffer[..calls].fill(calls as u8);
                    Ok(calls)
                }
            }
        }
    }
    let calls = Rc::new(Cell::new(0));
    let mut reader = AsyncReader::new(Steps(calls.clone())).with_capacity(100);
    drive(async {
        assert_eq!(calls.get(), 0);
        assert_eq!(reader.fill_buf().await.unwrap(), [1]);
        reader.consume(1);
        assert_eq!(calls.get(), 1);
        // Dropped while pending: goes on later.
        assert!(pending(pin!(reader.read(&mut [0; 10]))));
        assert!(reader.get_mut().is_none());
        let mut two = [0; 1];
        assert_eq!(reader.read(&mut two).await.unwrap(), 1);
        assert_eq!((two, calls.get()), ([2], 2));
        assert!(reader.get_mut().is_some());
        assert_eq!(reader.read(&mut two).await.unwrap(), 1);
        assert_eq!(calls.get(), 2, "there was one buffered");
        assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 4);
        assert_eq!(calls.get(), 4, "one was interrupted");
        assert_eq!(reader.read(&mut [0; 10]).await.unwrap_err().to_string(), "the fifth");
        assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 6);
        assert_eq!(reader.into_inner().unwrap().0.get(), 6);
    });
}

#[test]
fn an_async_reader_that_panics_is_done() {
    struct Panics;
    impl Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            fiberback::yield_now();
            panic!("on purpose")
        }
    }
    let mut reader = AsyncReader::new(Panics);
    let payload = catch_unwind(AssertUnwindSafe(|| drive(reader.read(&mut [0; 10])))).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
    assert!(drive(reader.read(&mut [0; 10])).unwrap_err().to_string().contains("panicked"));
    assert!(reader.get_mut().is_none());
    assert!(reader.into_inner().is_none());
}

#[test]
fn an_async_reader_that_cannot_open_says_so() {
    let mut reader = AsyncReader::<io::Empty>::open(|| Err(io::ErrorKind::PermissionDenied.into()));
    let error = drive(reader.read(&mut [0; 10])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(drive(reader.read(&mut [0; 10])).unwrap_err().to_string().contains("opened"));
}

#[test]
fn without_a_stack_nothing_is_lost() {
    let pool = StackPool::builder().max_stacks(1).build().unwrap();
    let builder = fiberback::Builder::new().pool(&pool);
    let taken = pool.take().unwrap();
    let mut reader = AsyncReader::new(&b"bytes"[..]).with_builder(builder.clone());
    let mut writer = AsyncWriter::new(Vec::new()).with_builder(builder);
    let error = drive(reader.read(&mut [0; 10])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    assert!(drive(writer.write(b"lost")).is_err());
    drop(taken);
    assert_eq!(drive(reader.read(&mut [0; 10])).unwrap(), 5);
    drive(writer.write_all(b"kept")).unwrap();
    assert_eq!(writer.into_inner().unwrap(), b"kept");
}

#[test]
fn an_async_writer_reports_late_errors_next() {
    struct Fails(usize);
    impl Write for Fails {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            fiberback::try_yield_now()?;
            self.0 += 1;
            if self.0 == 2 { Err(io::Error::other("the second")) } else { Ok(bytes.len()) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    drive(async {
        for last in ["write", "flush", "shutdown"] {
            let mut writer = AsyncWriter::new(Fails(0));
            assert_eq!(writer.write(b"one").await.unwrap(), 3);
            assert_eq!(writer.write(b"two").await.unwrap(), 3, "taken before it failed");
            let error = match last {
                "write" => writer.write(b"three").await.map(drop),
                "flush" => writer.flush().await,
                _ => writer.shutdown().await,
            };
            assert_eq!(error.unwrap_err().to_string(), "the second");
            // And only once.
            writer.write_all(b"four").await.unwrap();
            writer.flush().await.unwrap();
            assert_eq!(writer.get_mut().unwrap().0, 3);
        }
    });
}

#[test]
fn dropped_async_adapters_leak_nothing() {
    let census = Census::default();
    let bytes = gzipped();
    let reading = || {
        let source = Choppy::new(Cursor::new(bytes.clone()), 51, 80).counted(&census);
        let mut reader =
            AsyncReader::open(|| Ok(flate2::read::GzDecoder::new(SyncIo::new(source))));
        async move { reader.read_to_end(&mut Vec::new()).await }
    };
    let reads = cut_off_everywhere(reading, || assert_eq!(census.alive(), 0));
    let writing = || {
        let sink = Choppy::new(Vec::new(), 52, 80).counted(&census);
        let encoder = flate2::write::GzEncoder::new(SyncIo::new(sink), Default::default());
        let mut writer = AsyncWriter::new(encoder).on_shutdown(|encoder| encoder.try_finish());
        async move {
            writer.write_all(&text(52, 9_000)).await?;
            writer.shutdown().await
        }
    };
    let writes = cut_off_everywhere(writing, || assert_eq!(census.alive(), 0));
    println!("async adapters were dropped at {reads} + {writes} points");
    assert!(reads > 10 && writes > 10, "{reads}, {writes}");
}

// --- Other traits. -----------------------------------------------------------------------------------

#[test]
fn futures_io_through_tokio_util() {
    use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
    let source = futures_util::io::Cursor::new(gzipped());
    let plain = drive(run(move || read_gzip(&mut SyncIo::new(source.compat()))));
    assert_eq!(plain.unwrap(), read_gzip(&mut &gzipped()[..]).unwrap());

    // And a synchronous reader as `futures-io`'s.
    let mut reader = AsyncReader::new(&b"bytes"[..]).compat();
    let mut bytes = Vec::new();
    drive(futures_util::AsyncReadExt::read_to_end(&mut reader, &mut bytes)).unwrap();
    assert_eq!(bytes, b"bytes");
}

#[cfg(feature = "futures-io")]
#[test]
fn futures_io_directly() {
    use fiberback::io::FuturesIo;
    let source = futures_util::io::Cursor::new(zipped());
    let all = drive(run(move || {
        let mut source = SyncIo::new(FuturesIo::new(source));
        let all = read_zip(&mut source)?;
        assert_eq!(source.seek(SeekFrom::End(-22))?, zipped().len() as u64 - 22);
        assert_eq!(source.stream_position()?, zipped().len() as u64 - 22);
        assert_eq!(source.fill_buf()?[..4], *b"PK\x05\x06");
        source.write_all(b"over")?;
        source.shutdown()?;
        assert_eq!(
            source.into_inner().into_inner().into_inner()[zipped().len() - 22..][..4],
            *b"over"
        );
        Ok::<_, io::Error>(all)
    }));
    assert_eq!(all.unwrap(), read_zip(&mut Cursor::new(zipped())).unwrap());
}

// --- Turns. ------------------------------------------------------------------------------------------

/// How often a future is pending.
fn pendings<F: Future>(future: F) -> usize {
    let mut future = pin!(future);
    (0..).find(|_| !pending(future.as_mut())).unwrap()
}

#[test]
fn yield_now_suspends_once() {
    assert_eq!(pendings(run(|| (0..5).for_each(|_| fiberback::yield_now()))), 5);
    // Off a fiber: nothing.
    fiberback::yield_now();
    fiberback::try_yield_now().unwrap();
    Budget::every(0).spend(10);
}

#[tokio::test]
async fn yield_now_lets_others_run() {
    let turns = Rc::new(Cell::new(0));
    let theirs = turns.clone();
    let local = tokio::task::LocalSet::new();
    local.spawn_local(async move {
        loop {
            theirs.set(theirs.get() + 1);
            tokio::task::yield_now().await;
        }
    });
    local
        .run_until(run(move || {
            for _ in 0..100 {
                let before = turns.get();
                fiberback::yield_now();
                assert!(turns.get() > before);
            }
        }))
        .await;
}

#[test]
fn yielding_is_cancelled_like_a_wait() {
    let census = Census::default();
    let citizen = census.enter();
    let mut working = Box::pin(run(move || {
        let _citizen = citizen;
        loop {
            fiberback::yield_now();
        }
    }));
    assert!(pending(working.as_mut()));
    drop(working);
    assert_eq!(census.alive(), 0);

    // In a destructor that runs meanwhile, there is no turn to be had, and no second unwinding.
    struct Yields(Rc<Cell<bool>>);
    impl Drop for Yields {
        fn drop(&mut self) {
            fiberback::yield_now();
            self.0.set(true);
        }
    }
    let dropped = Rc::new(Cell::new(false));
    let yields = Yields(dropped.clone());
    let mut working = Box::pin(run(move || {
        let _yields = yields;
        fiberback::yield_now();
    }));
    assert!(pending(working.as_mut()));
    drop(working);
    assert!(dropped.replace(false));
    let yields = Yields(dropped.clone());
    let panicking = run(move || {
        let _yields = yields;
        panic!("on purpose")
    });
    let payload = catch_unwind(AssertUnwindSafe(|| drive(panicking))).map(|(): ()| ()).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
    assert!(dropped.get());
}

#[test]
fn budgets_count() {
    let spend = |every, units: u64, times: usize| {
        pendings(run(move || {
            let mut budget = Budget::every(every);
            (0..times).for_each(|_| budget.spend(units));
        }))
    };
    assert_eq!(spend(10, 1, 100), 10);
    assert_eq!(spend(10, 3, 100), 25);
    assert_eq!(spend(10, 25, 4), 4, "one turn, however much is spent at once");
    assert_eq!(spend(0, 1, 7), 7);
    assert_eq!(spend(1, 0, 7), 0);
}

#[test]
fn yielding_readers_and_writers_count_bytes() {
    let turns = |every| {
        pendings(run(move || {
            let bytes = text(61, 10_000);
            let mut source = Yielding::new(&bytes[..], Budget::every(every));
            let mut sink = Yielding::new(Vec::new(), Budget::every(u64::MAX));
            let mut buffer = [0; 100];
            loop {
                match source.read(&mut buffer).unwrap() {
                    0 => break,
                    count => sink.write_all(&buffer[..count]).unwrap(),
                }
            }
            assert_eq!(sink.into_inner(), bytes);
        }))
    };
    assert_eq!(turns(1_000), 10);
    assert_eq!(turns(250), 33);
    assert_eq!(turns(20_000), 0);
    let lines = pendings(run(|| {
        let bytes = vec![b'\n'; 1_000];
        let source = Yielding::new(&bytes[..], Budget::every(100));
        assert_eq!(source.lines().count(), 1_000);
    }));
    assert_eq!(lines, 10);
    // Off a fiber it passes everything on.
    let mut off = Yielding::new(Cursor::new(text(62, 100)), Budget::every(1));
    assert_eq!(io::copy(&mut off, &mut io::sink()).unwrap(), 100);
    assert_eq!(off.seek(SeekFrom::Start(3)).unwrap(), 3);
}

#[tokio::test]
async fn coop_budgets_yield_when_tokio_says_so() {
    // Off a task it never does.
    assert_eq!(
        pendings(tokio::task::unconstrained(run(|| {
            let mut budget = Budget::coop();
            (0..10_000).for_each(|_| budget.spend(1));
        }))),
        0
    );
    let local = tokio::task::LocalSet::new();
    let turns = Rc::new(Cell::new(0));
    let theirs = turns.clone();
    local.spawn_local(async move {
        loop {
            theirs.set(theirs.get() + 1);
            tokio::task::yield_now().await;
        }
    });
    local
        .run_until(async {
            tokio::task::spawn_local(run(|| {
                let mut budget = Budget::coop();
                (0..10_000).for_each(|_| budget.spend(1));
            }))
            .await
            .unwrap();
        })
        .await;
    // 128 operations a poll, at the time of writing.
    assert!((20..200).contains(&turns.get()), "{turns:?}");
}
