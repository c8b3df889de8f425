//! An HTTP server: axum on this stack, reached by the kernel's own clients.
//!
//! As root: `cargo run --example axum_server`, then `curl http://10.9.0.2/`.

mod common;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use lastack::{Net, TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let (net, driver) = Net::start(common::tun()?, common::config())?;
    let listener = TcpListener::bind(&net, "10.9.0.2:80").await?;
    println!("http://10.9.0.2/");
    tokio::select! {
        result = driver => result,
        result = serve(listener) => result,
    }
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    axum::serve(Listener(listener), router()).await
}

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello from a TCP stack in user space\n" }))
        .route("/zeroes/{bytes}", get(zeroes))
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .layer(axum::extract::DefaultBodyLimit::max(1 << 30))
}

async fn zeroes(axum::extract::Path(bytes): axum::extract::Path<usize>) -> Vec<u8> {
    vec![0; bytes.min(1 << 30)]
}

/// What axum asks of a listener.
struct Listener(TcpListener);

impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match self.0.accept().await {
            Ok(accepted) => accepted,
            // The stack has stopped: there is nothing to accept any more.
            Err(_) => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
