//! Synchronous archive crates over an async socket, in both directions, on one thread.
//!
//! ```text
//! cargo run --features io --example sync_io_archive
//! ```
//!
//! One end packs files with `tar` and `flate2` straight into the socket, the other unpacks them
//! straight out of it. Neither crate knows of async; neither end holds the archive in memory.

use fiberback::io::SyncIo;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use std::io::{self, Read};
use tokio::net::{TcpListener, TcpStream};

/// A file: its name, and what is in it.
pub(crate) type File = (String, Vec<u8>);

// Ordinary synchronous code.

fn pack(files: &[File], sink: impl io::Write) -> io::Result<impl io::Write> {
    let mut archive = tar::Builder::new(GzEncoder::new(sink, Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &bytes[..])?;
    }
    archive.into_inner()?.finish()
}

fn unpack(source: impl Read) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(GzDecoder::new(source)).entries()? {
        let mut entry = entry?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.push((String::from_utf8_lossy(&entry.path_bytes()).into_owned(), bytes));
    }
    Ok(files)
}

/// Sends the files through a loopback socket, and returns those that arrive.
pub(crate) async fn transfer(files: Vec<File>) -> io::Result<Vec<File>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    // Two fibers: while one waits for the socket, the other runs.
    let (sent, received) = tokio::join!(
        fiberback::run(move || pack(&files, SyncIo::new(near)).map(drop)),
        fiberback::run(move || unpack(SyncIo::new(far))),
    );
    sent?;
    received
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let files = (1..=5).map(|n| (format!("file{n}.txt"), vec![b'a' + n; n as usize * 100_000]));
    for (name, bytes) in transfer(files.collect()).await? {
        println!("{name}: {} bytes", bytes.len());
    }
    Ok(())
}
