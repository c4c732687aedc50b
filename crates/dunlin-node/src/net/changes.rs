//! The kernel's word that links or addresses of this machine changed. What there is now is looked up by whoever hears it.

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use std::io;

/// Links, IPv4 addresses and IPv6 addresses: `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR`.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// So much of a message is read, which says nothing more.
const MESSAGE: usize = 4096;

/// A subscription to changes; without one nothing is ever heard.
pub(super) struct Changes(Option<TokioSocket>);

impl Changes {
    /// Subscribes, where the kernel has and gives such a thing.
    pub(super) fn listen() -> Changes {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
            Ok(socket)
        };
        Changes(open().ok())
    }

    /// Whether changes are told at all.
    pub(super) fn are_told(&self) -> bool {
        self.0.is_some()
    }

    /// Returns once something changed.
    pub(super) async fn come(&mut self) {
        let Some(socket) = &mut self.0 else { return std::future::pending().await };
        let lost = rustix::io::Errno::NOBUFS.raw_os_error();
        match socket.recv(&mut Vec::with_capacity(MESSAGE)).await {
            Ok(_) => {}
            // More came than was read: something did change.
            Err(e) if e.raw_os_error() == Some(lost) => {}
            // It would say so again and again.
            Err(_) => self.0 = None,
        }
    }
}
