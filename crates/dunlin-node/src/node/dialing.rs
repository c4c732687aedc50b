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

/// What is done about one device.
#[derive(Default)]
enum Doing {
    #[default]
    Nothing,
    /// It is dialled; this ends that (not the connection) for one that knows more addresses.
    Dials(Arc<Notify>),
    /// It was reached, and the connection lives.
    Speaks,
}

struct Attempts {
    failed: u32,
    next: Instant,
    /// The addresses tried last: new ones are tried at once.
    tried: Vec<SocketAddr>,
    doing: Doing,
}

/// What is done about all of them.
#[derive(Default)]
struct Dialling(BTreeMap<DeviceId, Attempts>);

/// What comes next for a device.
enum Next {
    /// It is dialled now, until this is notified.
    Dial(Arc<Notify>),
    /// It is dialled at this time.
    At(Instant),
    /// Something else comes first, of which is heard.
    Wait,
}

impl Dialling {
    /// What comes next for a device that is not connected and may be at these addresses.
    fn next(&mut self, device: DeviceId, addresses: &[SocketAddr], now: Instant) -> Next {
        let busy = self.0.values().filter(|a| matches!(a.doing, Doing::Dials(_))).count();
        let a = self.0.entry(device).or_insert(Attempts {
            failed: 0,
            next: now,
            tried: Vec::new(),
            doing: Doing::Nothing,
        });
        let news = addresses.iter().any(|x| !a.tried.contains(x));
        match &a.doing {
            Doing::Dials(restart) if news => {
                // It would try addresses that may be stale for seconds.
                restart.notify_one();
                Next::Wait
            }
            Doing::Dials(_) | Doing::Speaks => Next::Wait,
            Doing::Nothing if addresses.is_empty() || busy >= DIALS_MAX => Next::Wait,
            Doing::Nothing if now < a.next && !news => Next::At(a.next),
            Doing::Nothing => {
                let restart: Arc<Notify> = Arc::default();
                (a.doing, a.tried) = (Doing::Dials(restart.clone()), addresses.to_vec());
                Next::Dial(restart)
            }
        }
    }

    /// It was reached: others can be dialled while it speaks.
    fn reached(&mut self, device: &DeviceId) {
        if let Some(a) = self.0.get_mut(device) {
            a.doing = Doing::Speaks;
        }
    }

    /// Dialling ended for one that knows more addresses.
    fn restarts(&mut self, device: &DeviceId) {
        if let Some(a) = self.0.get_mut(device) {
            a.doing = Doing::Nothing;
        }
    }

    /// It was not reached, or the connection ended; one that did not last is no success.
    fn ended(&mut self, device: &DeviceId, lasted: bool, now: Instant) {
        if let Some(a) = self.0.get_mut(device) {
            a.doing = Doing::Nothing;
            a.failed = if lasted { 0 } else { a.failed.saturating_add(1) };
            a.next = now + Duration::from_millis(retry_after_ms(a.failed));
        }
    }
}

/// Dials every member that is not connected, again and again, ever less often.
pub(super) async fn dial(shared: Arc<Shared>) {
    let dialling: Arc<Mutex<Dialling>> = Arc::default();
    loop {
        let now = Instant::now();
        let mut next = now + RETRY_LONGEST;
        for device in unconnected(&shared) {
            let addresses = shared.addresses_of(&device);
            let what = lock(&dialling).next(device, &addresses, now);
            match what {
                Next::Wait => {}
                Next::At(at) => next = next.min(at),
                Next::Dial(restart) => {
                    tokio::spawn(attempt(shared.clone(), dialling.clone(), device, addresses, restart));
                }
            }
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
    dialling: Arc<Mutex<Dialling>>,
    device: DeviceId,
    addresses: Vec<SocketAddr>,
    restart: Arc<Notify>,
) {
    let result = tokio::select! {
        result = shared.transport.connect(device.0, &addresses, ALPN, DIAL_TIMEOUT) => result,
        () = restart.notified() => {
            lock(&dialling).restarts(&device);
            shared.redial.notify_one();
            return;
        }
    };
    let began = Instant::now();
    let mut lasted = false;
    if let Ok(conn) = result {
        lock(&dialling).reached(&device);
        shared.redial.notify_one();
        let closed = conn.clone();
        crate::session::run(shared.clone(), conn).await;
        // One that was refused at once (a stranger there, or replaced) is no success.
        lasted = began.elapsed() > Duration::from_secs(2) && closed.close_reason().is_some();
    }
    lock(&dialling).ended(&device, lasted, Instant::now());
    shared.redial.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: usize) -> (DeviceId, Vec<SocketAddr>) {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        (DeviceId(id), vec![SocketAddr::from(([10, 0, 0, 1], 1000 + n as u16))])
    }

    #[test]
    fn those_that_are_spoken_with_keep_nobody_from_being_dialled() {
        let (mut all, now) = (Dialling::default(), Instant::now());
        let dials = |all: &mut Dialling, n, now| {
            let (id, at) = device(n);
            matches!(all.next(id, &at, now), Next::Dial(_))
        };
        for n in 0..DIALS_MAX {
            assert!(dials(&mut all, n, now) && !dials(&mut all, n, now));
        }
        assert!(!dials(&mut all, DIALS_MAX, now), "so many are under way");
        for n in 0..DIALS_MAX {
            all.reached(&device(n).0);
        }
        for n in DIALS_MAX..2 * DIALS_MAX {
            assert!(dials(&mut all, n, now), "{n}");
        }
        assert!(!dials(&mut all, 0, now), "it is spoken with");
        // One that ended is dialled again, at once if that is new, else later.
        all.ended(&device(DIALS_MAX).0, false, now);
        let (id, at) = device(DIALS_MAX);
        let Next::At(later) = all.next(id, &at, now) else { panic!("not yet") };
        assert!(later > now && dials(&mut all, DIALS_MAX, later));
        all.ended(&id, false, later);
        assert!(matches!(all.next(id, &device(7).1, later), Next::Dial(_)));
    }
}
