//! One TCP connection between two devices that proved their keys.

use super::tls;
use rustls::{ClientConfig, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The accepting side's first byte: it serves this connection.
const WELCOME: u8 = 1;
/// What was sent and not acknowledged for so long, or not read, ends a connection.
const UNHEARD: Duration = Duration::from_secs(15);
/// An idle connection is looked after so often.
const ALIVE: Duration = Duration::from_secs(10);
/// Bytes taken from the kernel at a time.
const READ: usize = 256 << 10;
/// Bytes encrypted ahead of the kernel.
const WRITE: usize = 256 << 10;

/// A TLS connection over TCP.
#[derive(Debug)]
pub struct LaneStream(TlsStream<BufReader<TcpStream>>);

/// What the sockets of both sides need; a kernel that does not offer it has its own ways.
pub(super) fn tune(socket: SockRef<'_>) {
    // It keeps its speed where some packets are lost, which Cubic does not.
    let _ = socket.set_tcp_congestion(b"bbr");
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(UNHEARD));
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE));
}

fn buffered(tcp: TcpStream) -> BufReader<TcpStream> {
    BufReader::with_capacity(READ, tcp)
}

impl LaneStream {
    /// Connects to the device that `config` expects. The caller bounds the time.
    pub(super) async fn connect(at: SocketAddr, config: Arc<ClientConfig>) -> io::Result<LaneStream> {
        let tcp = TcpStream::connect(at).await?;
        tune(SockRef::from(&tcp));
        let mut tls = TlsConnector::from(config).connect(tls::nobody(), buffered(tcp)).await?;
        tls.get_mut().1.set_buffer_limit(Some(WRITE));
        if tls.get_ref().1.alpn_protocol() != Some(tls::ALPN_BULK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another protocol"));
        }
        // Only now is it known that the other side takes this one's key.
        if tls.read_u8().await? != WELCOME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no welcome"));
        }
        Ok(LaneStream(tls.into()))
    }

    /// Lets a connection in whose device `config` admits. The caller bounds the time.
    pub(super) async fn accept(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
    ) -> io::Result<([u8; 32], LaneStream)> {
        tune(SockRef::from(&tcp));
        let mut tls = TlsAcceptor::from(config).accept(buffered(tcp)).await?;
        tls.get_mut().1.set_buffer_limit(Some(WRITE));
        let session = tls.get_ref().1;
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, "no key, or another protocol");
        if session.alpn_protocol() != Some(tls::ALPN_BULK) {
            return Err(unknown());
        }
        let shown = session.peer_certificates().and_then(|all| all.first());
        let device = shown.and_then(tls::key_of).ok_or_else(unknown)?;
        tls.write_u8(WELCOME).await?;
        tls.flush().await?;
        Ok((device, LaneStream(tls.into())))
    }
}

impl AsyncRead for LaneStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LaneStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
