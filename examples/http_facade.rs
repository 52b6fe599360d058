//! A synchronous HTTP client over hyper, in a page of code: its methods work on fibers, on plain threads and in
//! `spawn_blocking`, and share one pool of connections.
//!
//! ```text
//! cargo run --example http_facade
//! ```

use fiberback::Facade;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Body = Empty<std::collections::VecDeque<u8>>;

/// The synchronous client: this is all there is to it. It is `Send` and `Sync`.
pub(crate) struct Http(Facade<Client<HttpConnector, Body>>);

impl Http {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Facade::new(|| Client::builder(TokioExecutor::new()).build_http())?))
    }

    /// The text at `url`.
    pub(crate) fn get(&self, url: &str) -> Result<String, Failure> {
        let url = url.parse()?;
        let body = self.0.try_call(async |client| {
            let body = client.get(url).await?.into_body().collect().await?;
            Ok::<_, Failure>(body.to_bytes())
        })??;
        Ok(String::from_utf8(body.into())?)
    }
}

/// A server that answers each request with its path, and counts its connections.
pub(crate) async fn serve(listener: TcpListener, connections: Arc<AtomicUsize>) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut socket = BufReader::new(socket);
            let (mut line, mut path) = (String::new(), String::new());
            while socket.read_line(&mut line).await? > 0 {
                if let Some(rest) = line.strip_prefix("GET ") {
                    rest.split(' ').next().unwrap_or_default().clone_into(&mut path);
                } else if line == "\r\n" {
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
                    socket.write_all(answer.as_bytes()).await?;
                }
                line.clear();
            }
            io::Result::Ok(())
        });
    }
}

/// Calls the same client in each kind of place. Returns the answers, and how many connections there were.
pub(crate) fn everywhere() -> Result<(Vec<String>, usize), Failure> {
    let connections = Arc::new(AtomicUsize::new(0));
    let server =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = server.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let url = format!("http://{}", listener.local_addr()?);
    server.spawn(serve(listener, Arc::clone(&connections)));

    let http = Arc::new(Http::new()?);
    let mut answers = Vec::new();

    // On a fiber, in a runtime that ends afterwards.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (client, at) = (Arc::clone(&http), format!("{url}/fiber"));
    answers.push(runtime.block_on(fiberback::run(move || client.get(&at)))?);
    drop(runtime);

    // On this plain thread: over the connection that was made above.
    answers.push(http.get(&format!("{url}/thread"))?);

    // In `spawn_blocking`, and on another kind of runtime.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (client, at) = (Arc::clone(&http), format!("{url}/blocking"));
    answers.push(runtime.block_on(runtime.spawn_blocking(move || client.get(&at)))??);

    // And where nothing may block, an error that says what to type.
    let refused = runtime.block_on(async { http.get(&format!("{url}/never")) });
    answers.push(refused.expect_err("this would block the runtime").to_string());
    Ok((answers, connections.load(Ordering::SeqCst)))
}

fn main() -> Result<(), Failure> {
    let (answers, connections) = everywhere()?;
    for answer in answers {
        println!("{answer}");
    }
    println!("{connections} connection");
    Ok(())
}
