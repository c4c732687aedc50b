//! Who is connected: accepting, dialling members that are not, and what discovery tells.

use super::Shared;
use crate::folder::lock;
use crate::net::beacon::Sighting;
use crate::session::CODE_STOPPED;
use dunlin_core::ids::DeviceId;
use dunlin_core::message::{ALPN, ALPN_JOIN};
use dunlin_core::session::{RETRY_LONGEST_MS, retry_after_ms};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// One attempt takes at most this long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
const RETRY_LONGEST: Duration = Duration::from_millis(RETRY_LONGEST_MS);
/// How often discovery is asked for an inviter: what it told before nobody remembered.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// Attempts under way at once.
const DIALS_MAX: usize = 16;

/// Accepts connections until the node ends.
pub(super) async fn accept(shared: Arc<Shared>) {
    while let Some(conn) = shared.transport.accept().await {
        if shared.once().is_err() {
            conn.close(CODE_STOPPED, b"");
            continue;
        }
        let shared = shared.clone();
        tokio::spawn(async move {
            if conn.alpn() == ALPN_JOIN {
                super::joining::admit(shared, conn).await;
            } else {
                crate::session::run(shared, conn).await;
            }
        });
    }
}

/// Remembers where discovery saw devices.
pub(super) async fn take_sightings(shared: Arc<Shared>, mut sightings: mpsc::Receiver<Sighting>) {
    while let Some(s) = sightings.recv().await {
        let device = DeviceId(s.device);
        shared.sighted(device, s.addrs.clone());
        shared.joins_sighted(device, &s.addrs);
    }
}

/// Looking for the inviter of a ticket while it is used.
pub(super) struct Expected<'a> {
    shared: &'a Shared,
    device: DeviceId,
    seen: watch::Receiver<Vec<SocketAddr>>,
    next_ask: Instant,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        lock(&self.shared.expected).remove(&self.device);
    }
}

impl Expected<'_> {
    /// Where discovery saw it last.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.seen.borrow().clone()
    }

    /// Lets discovery ask, again and again, until it saw the inviter where nobody tried.
    pub(super) async fn seen_but_at(&mut self, tried: &[SocketAddr]) {
        loop {
            if self.seen.borrow_and_update().iter().any(|a| !tried.contains(a)) {
                return;
            }
            tokio::select! {
                // The sender lives as long as this.
                _ = self.seen.changed() => {}
                () = tokio::time::sleep_until(self.next_ask.into()) => {
                    self.next_ask = Instant::now() + LOOK_AROUND;
                    self.shared.look_around();
                }
            }
        }
    }
}

impl Shared {
    /// One device at a time: joins come one after the other.
    pub(super) fn expect_join(&self, device: DeviceId) -> Expected<'_> {
        let (tell, seen) = watch::channel(Vec::new());
        lock(&self.expected).insert(device, tell);
        Expected { shared: self, device, seen, next_ask: Instant::now() }
    }

    fn joins_sighted(&self, device: DeviceId, at: &[SocketAddr]) {
        if let Some(known) = lock(&self.expected).get(&device) {
            known.send_replace(at.to_vec());
        }
    }
}

struct Attempts {
    failed: u32,
    next: Instant,
    /// The addresses tried last: new ones are tried at once.
    tried: Vec<SocketAddr>,
    under_way: bool,
    /// Ends the dialling (not the connection) for one that knows more addresses.
    restart: Arc<Notify>,
}

/// Dials every member that is not connected, again and again, ever less often.
pub(super) async fn dial(shared: Arc<Shared>) {
    let attempts: Arc<Mutex<BTreeMap<DeviceId, Attempts>>> = Arc::default();
    loop {
        let now = Instant::now();
        let mut next = now + RETRY_LONGEST;
        for device in unconnected(&shared) {
            let addresses = shared.addresses_of(&device);
            let mut all = lock(&attempts);
            let busy = all.values().filter(|a| a.under_way).count();
            let a = all.entry(device).or_insert(Attempts {
                failed: 0,
                next: now,
                tried: Vec::new(),
                under_way: false,
                restart: Arc::default(),
            });
            let news = addresses.iter().any(|x| !a.tried.contains(x));
            if a.under_way && news {
                // It would try addresses that may be stale for seconds.
                a.restart.notify_one();
            }
            if a.under_way || addresses.is_empty() || busy >= DIALS_MAX {
                continue;
            }
            if now < a.next && !news {
                next = next.min(a.next);
                continue;
            }
            (a.under_way, a.tried, a.restart) = (true, addresses.clone(), Arc::default());
            let restart = a.restart.clone();
            drop(all);
            tokio::spawn(attempt(shared.clone(), attempts.clone(), device, addresses, restart));
        }
        let wait = next.saturating_duration_since(Instant::now());
        // Woken by news, or when somebody is due.
        let _ = tokio::time::timeout(wait, shared.redial.notified()).await;
    }
}

fn unconnected(shared: &Shared) -> Vec<DeviceId> {
    let mut out: Vec<DeviceId> = Vec::new();
    for folder in shared.folders() {
        out.extend(folder.members.borrow().keys().copied());
    }
    out.sort_unstable();
    out.dedup();
    let peers = lock(&shared.peers);
    out.retain(|d| *d != shared.device && !peers.contains_key(d));
    out
}

async fn attempt(
    shared: Arc<Shared>,
    attempts: Arc<Mutex<BTreeMap<DeviceId, Attempts>>>,
    device: DeviceId,
    addresses: Vec<SocketAddr>,
    restart: Arc<Notify>,
) {
    let result = tokio::select! {
        result = shared.transport.connect(device.0, &addresses, ALPN, DIAL_TIMEOUT) => result,
        () = restart.notified() => {
            if let Some(a) = lock(&attempts).get_mut(&device) {
                a.under_way = false;
            }
            shared.redial.notify_one();
            return;
        }
    };
    let began = Instant::now();
    let mut lasted = false;
    if let Ok(conn) = result {
        let closed = conn.clone();
        crate::session::run(shared.clone(), conn).await;
        // One that was refused at once (a stranger there, or replaced) is no success.
        lasted = began.elapsed() > Duration::from_secs(2) && closed.close_reason().is_some();
    }
    let mut all = lock(&attempts);
    if let Some(a) = all.get_mut(&device) {
        a.under_way = false;
        a.failed = if lasted { 0 } else { a.failed.saturating_add(1) };
        a.next = Instant::now() + Duration::from_millis(retry_after_ms(a.failed));
    }
    drop(all);
    shared.redial.notify_one();
}
