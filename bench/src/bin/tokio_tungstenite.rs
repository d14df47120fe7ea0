//! The echo example of tokio-tungstenite: `read.forward(write)`.

use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, future};
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

#[derive(Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Threads; with one, a current_thread runtime.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Bytes of the read buffer of each connection; the library's default without.
    #[arg(long)]
    read_buffer: Option<usize>,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let runtime = match arguments.threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        threads => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()?,
    };
    let mut config = WebSocketConfig::default();
    if let Some(bytes) = arguments.read_buffer {
        config = config.read_buffer_size(bytes);
    }
    runtime.block_on(async move {
        let listener = listen(arguments.listen)?;
        // In a task: what `block_on` itself polls runs on no worker of the runtime.
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream, config));
            }
        });
        accepting.await.map_err(io::Error::other)
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

async fn echo(stream: TcpStream, config: WebSocketConfig) {
    let Ok(socket) = accept_async_with_config(stream, Some(config)).await else { return };
    let (write, read) = socket.split();
    // A client that goes is no error here.
    let _ = read
        .try_filter(|message| future::ready(message.is_text() || message.is_binary()))
        .forward(write)
        .await;
}
