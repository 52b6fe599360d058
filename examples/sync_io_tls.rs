//! A synchronous protocol library, `rustls`' own blocking streams, over async sockets.
//!
//! ```text
//! cargo run --features io --example sync_io_tls
//! ```
//!
//! `rustls::StreamOwned` wants `Read + Write`; [`SyncIo`] has both. So no async port of a protocol
//! crate is needed (here there is one, `tokio-rustls`; for many protocols there is none).

use fiberback::io::SyncIo;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

type BoxError = Box<dyn Error + Send + Sync>;

// Ordinary synchronous code.

/// Answers each line in upper case, until the peer closes.
fn serve(config: Arc<ServerConfig>, socket: impl Read + Write) -> Result<u32, BoxError> {
    let mut stream =
        BufReader::new(rustls::StreamOwned::new(ServerConnection::new(config)?, socket));
    let mut lines = 0;
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 {
        lines += 1;
        line.make_ascii_uppercase();
        stream.get_mut().write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(lines)
}

/// Asks once for each word.
fn ask(
    config: Arc<ClientConfig>,
    socket: impl Read + Write,
    words: &[&str],
) -> Result<Vec<String>, BoxError> {
    let session = ClientConnection::new(config, "localhost".try_into()?)?;
    let mut stream = BufReader::new(rustls::StreamOwned::new(session, socket));
    let mut answers = Vec::new();
    for word in words {
        writeln!(stream.get_mut(), "{word}")?;
        let mut answer = String::new();
        stream.read_line(&mut answer)?;
        answers.push(answer.trim_end().to_owned());
    }
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush()?;
    Ok(answers)
}

/// A certificate for `localhost` that nobody else trusts.
fn configurations() -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), BoxError> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = signed.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(client), Arc::new(server)))
}

/// Both ends on one thread. Returns the answers, and how many lines the server saw.
pub(crate) async fn converse(words: &'static [&str]) -> Result<(Vec<String>, u32), BoxError> {
    let (client, server) = configurations()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (far, _) = listener.accept().await?;
    let (answers, lines) = tokio::join!(
        fiberback::run(move || ask(client, SyncIo::new(near), words)),
        fiberback::run(move || serve(server, SyncIo::new(far))),
    );
    Ok((answers?, lines?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let (answers, lines) = converse(&["hello", "over", "tls"]).await?;
    println!("{lines} lines: {}", answers.join(" "));
    io::stdout().flush()?;
    Ok(())
}
