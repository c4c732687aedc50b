//! Finding devices on the links of this machine: a small signed packet on every interface.
//!
//! Stock mDNS look-up misses hosts without a gateway, the second of two LANs, and several nodes on
//! a machine whose only interface is loopback. The beacon asks on each interface by itself (IPv4
//! multicast, IPv6 multicast, and where those are swallowed broadcast and the neighbours one by
//! one); whoever hears it answers at once, to the asker alone. It tells no folder and no name, and
//! what it hears is a hint: who a device is shows only when it proves its key over QUIC.

use super::addrs::{self, LocalAddr};
use super::beacon_limits::{Admission, Sightings};
use super::beacon_link::{Hear, Link, send};
use super::beacon_packet::{self, Claim, PACKET_LEN, Packet};
use super::changes::Changes;
use super::neighbours;
use iroh::SecretKey;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// The UDP port questions go to, shared by all nodes of a machine.
pub const BEACON_PORT: u16 = 19000;
/// The IPv4 group: administratively scoped, never routed on.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 68, 76);
/// The IPv6 group: link-local scope.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x444e, 0x4c4e);

/// Links opened at most; a machine with more addresses is found by the first of them.
const MAX_LINKS: usize = 64;
/// IPv6 addresses of one interface that are spoken from.
const MAX_V6: usize = 2;
/// How often it is looked what links there are. The kernel tells of changes, but not of what hinders a link from being opened.
const REFRESH: Duration = Duration::from_secs(5);
/// The same where the kernel tells of none.
const REFRESH_UNTOLD: Duration = Duration::from_secs(1);
/// A change of the network is told in several pieces: it is looked so long after the first of them.
const SETTLE: Duration = Duration::from_millis(100);
const BURST: u8 = 3;
const ANNOUNCE_MS: (u64, u64) = (20_000, 30_000);
const FALLBACK: Duration = Duration::from_secs(60);
/// How long after the start the fallback asks: where multicast works it is not needed.
const FALLBACK_FIRST: Duration = Duration::from_millis(150);
/// Bursts that [`Beacon::ask`] may start: no closer than this. What is asked sooner is put off until then.
const ASK_GAP: Duration = Duration::from_millis(500);

/// On which interfaces a beacon speaks and listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeaconMode {
    /// All, loopback included.
    All,
    /// This machine only, at 127.0.0.1.
    Loopback,
    /// Only the one with this address: for a node that listens at nothing else. `::1` finds nobody,
    /// since Linux carries no IPv6 multicast over loopback.
    Only(IpAddr),
    /// None.
    Off,
}

impl BeaconMode {
    /// The mode that announces just what a transport bound with this `listen` can be reached at.
    #[must_use]
    pub fn for_listen(listen: Option<SocketAddr>) -> BeaconMode {
        match listen.map(|a| a.ip()) {
            None => BeaconMode::All,
            Some(ip) if ip.is_unspecified() => BeaconMode::All,
            Some(ip) if ip == IpAddr::V4(Ipv4Addr::LOCALHOST) => BeaconMode::Loopback,
            Some(ip) => BeaconMode::Only(ip),
        }
    }

    /// The addresses to open links at, of all that are there.
    fn wanted(self, all: &[LocalAddr]) -> Vec<LocalAddr> {
        let mut out: Vec<LocalAddr> = match self {
            BeaconMode::Off => Vec::new(),
            BeaconMode::Loopback => BeaconMode::Only(Ipv4Addr::LOCALHOST.into()).wanted(all),
            BeaconMode::Only(ip) => all
                .iter()
                // All of 127/8 is loopback's, though the interface shows one address.
                .filter(|l| l.ip == ip || (ip.is_loopback() && l.ip.is_loopback() && l.on_link(ip)))
                .map(|l| LocalAddr { ip, ..l.clone() })
                .take(1)
                .collect(),
            BeaconMode::All => {
                let v4 = all.iter().filter(|l| l.ip.is_ipv4()).cloned();
                v4.chain(wanted_v6(all)).collect()
            }
        };
        out.truncate(MAX_LINKS);
        out
    }
}

/// IPv6 addresses to speak from: no link-local ones, since iroh 1.4 drops their scope and cannot
/// dial them, and not every temporary address of an interface. Loopback has IPv4 for this.
fn wanted_v6(all: &[LocalAddr]) -> Vec<LocalAddr> {
    let mut out: Vec<LocalAddr> = Vec::new();
    for local in all {
        let usable = matches!(local.ip, IpAddr::V6(a) if !a.is_unicast_link_local() && !a.is_loopback());
        if usable && out.iter().filter(|l| l.index == local.index).count() < MAX_V6 {
            out.push(local.clone());
        }
    }
    out
}

/// What [`Beacon::start`] needs to know.
#[derive(Clone)]
pub struct BeaconOptions {
    /// The device's ed25519 secret key.
    pub secret_key: [u8; 32],
    /// The transport's IPv4 and IPv6 port, where it has such a socket
    /// (`Transport::ports`).
    pub ports: (Option<u16>, Option<u16>),
    /// On which interfaces.
    pub mode: BeaconMode,
}

/// A device said that it can be dialled here. Not proven until it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The device's public key.
    pub device: [u8; 32],
    /// Its addresses heard in the last 75 s, latest first, at most 8.
    pub addrs: Vec<SocketAddr>,
}

/// A running beacon. Dropping it stops it.
#[derive(Debug)]
pub struct Beacon {
    commands: mpsc::Sender<()>,
    task: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Beacon {
    /// Opens the links there are, asks on each at once, and goes on until stopped: new interfaces
    /// within 1 s, if not told of by the kernel within 5 s, announcements every 20 to 30 s. Sightings that `out` has no room for are
    /// dropped; the next packet brings them again.
    ///
    /// # Errors
    /// When the interfaces cannot be listed. A link that cannot be opened is tried again every 5 s.
    pub fn start(options: BeaconOptions, out: mpsc::Sender<Sighting>) -> io::Result<Beacon> {
        // Before it is looked what there is, so that nothing is missed.
        let changes = Changes::listen();
        let first = options.mode.wanted(&addrs::interfaces()?);
        let key = SecretKey::from_bytes(&options.secret_key);
        let shared = Arc::new(Shared {
            me: *key.public().as_bytes(),
            key,
            ports: options.ports,
            seq: AtomicU64::new(0),
            state: Mutex::new(State {
                admission: Admission::new(Instant::now()),
                sightings: Sightings::default(),
                links: Vec::new(),
                deaf: false,
            }),
            out,
            doubles: watch::channel(None).0,
        });
        let (commands, inbox) = mpsc::channel(1);
        let mut speaker = Speaker { shared: shared.clone(), mode: options.mode, links: Vec::new(), changes };
        // Here and not in the task, so that who starts a beacon next is heard by this one.
        speaker.adopt(first);
        let task = tokio::spawn(speaker.run(inbox));
        Ok(Beacon { commands, task, shared })
    }

    /// Asks again on all links: three times over a second, and at most twice a second in all. Devices
    /// already known are told again.
    pub fn ask(&self) {
        // A full channel means that a question is already under way.
        let _ = self.commands.try_send(());
    }

    /// Whether some link cannot hear questions, because another program holds [`BEACON_PORT`].
    /// This device then still finds others when it asks.
    #[must_use]
    pub fn is_deaf(&self) -> bool {
        self.shared.state().deaf
    }

    /// Where another beacon with this key was heard last: only one at a time is to run. It hears of
    /// this one, too.
    #[must_use]
    pub fn doubles(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.shared.doubles.subscribe()
    }

    /// Stops; the sockets are closed when this returns.
    pub async fn stop(self) {
        drop(self.commands);
        let _ = self.task.await;
    }
}

#[derive(Debug)]
struct State {
    admission: Admission,
    sightings: Sightings,
    /// Where answers leave, by the link the asker is on.
    links: Vec<(LocalAddr, Arc<UdpSocket>)>,
    deaf: bool,
}

#[derive(Debug)]
struct Shared {
    key: SecretKey,
    me: [u8; 32],
    ports: (Option<u16>, Option<u16>),
    seq: AtomicU64,
    state: Mutex<State>,
    out: mpsc::Sender<Sighting>,
    /// Where this device's own key was heard, and not from this beacon.
    doubles: watch::Sender<Option<SocketAddr>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The tables are only hints: whatever a panic left in them will do.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn packet(&self, ask: bool, source: IpAddr) -> [u8; PACKET_LEN] {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(clock.as_millis()).unwrap_or(0);
        let before = self
            .seq
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |s| Some(clock.max(s.saturating_add(1))));
        let seq = clock.max(before.unwrap_or_default().saturating_add(1));
        let (v4, v6) = self.ports;
        let (port_v4, port_v6) = (v4.unwrap_or(0), v6.unwrap_or(0));
        let packet = Packet { device: self.me, ask, port_v4, port_v6, seq };
        beacon_packet::encode(&packet, &self.key, source)
    }

    /// The link that `from` is on: nothing from elsewhere is heard or answered.
    fn link_of(&self, from: SocketAddr) -> Option<(IpAddr, Arc<UdpSocket>)> {
        let scope = match from {
            SocketAddr::V6(a) if a.ip().is_unicast_link_local() => Some(a.scope_id()),
            _ => None,
        };
        let state = self.state();
        let near = |l: &&(LocalAddr, _)| scope.is_none_or(|s| s == l.0.index) && l.0.on_link(from.ip());
        state.links.iter().find(near).map(|(l, tx)| (l.ip, tx.clone()))
    }

    /// Everything from cheap to dear: form, self, link, news, rate, signature.
    fn accept(&self, bytes: &[u8], from: SocketAddr) -> Option<Packet> {
        let claim = Claim::parse(bytes).ok()?;
        let Packet { device, seq, .. } = *claim.unverified();
        self.link_of(from)?;
        let now = Instant::now();
        if device == self.me {
            // What this beacon sent comes back on each link. A sequence that it did not reach is another's.
            if seq <= self.seq.load(Ordering::SeqCst) || !self.state().admission.admit(from.ip(), now) {
                return None;
            }
            return Some(self.meet_double(claim.verify(from.ip()).ok()?, from));
        }
        {
            let mut state = self.state();
            if !state.sightings.is_fresh(&device, from.ip(), seq, now)
                || !state.admission.admit(from.ip(), now)
            {
                return None;
            }
        }
        let packet = claim.verify(from.ip()).ok()?;
        let port = if from.is_ipv4() { packet.port_v4 } else { packet.port_v6 };
        if port != 0 {
            let mut addr = from;
            addr.set_port(port);
            let addr = addrs::canonical(addr);
            if let Some(addrs) = self.state().sightings.note(device, addr, seq, now) {
                let _ = self.out.try_send(Sighting { device, addrs });
            }
        }
        Some(packet)
    }
}

impl Shared {
    /// Another beacon has this key. It is to learn of this one as well, however its clock goes, and without a
    /// talk that never ends.
    fn meet_double(&self, packet: Packet, mut at: SocketAddr) -> Packet {
        self.seq.fetch_max(packet.seq, Ordering::SeqCst);
        let port = if at.is_ipv4() { packet.port_v4 } else { packet.port_v6 };
        if port != 0 {
            at.set_port(port);
        }
        let before = self.doubles.send_replace(Some(addrs::canonical(at)));
        Packet { ask: packet.ask || before.is_none(), ..packet }
    }
}

impl Hear for Shared {
    async fn hear(self: Arc<Self>, bytes: &[u8], from: SocketAddr) {
        let Some(packet) = self.accept(bytes, from) else { return };
        if !packet.ask {
            return;
        }
        if let Some((ip, tx)) = self.link_of(from) {
            send(&tx, &self.packet(false, ip), from).await;
        }
    }
}

/// The part that speaks by itself.
struct Speaker {
    shared: Arc<Shared>,
    mode: BeaconMode,
    links: Vec<Link>,
    changes: Changes,
}

impl Speaker {
    async fn run(mut self, mut inbox: mpsc::Receiver<()>) {
        let every = if self.changes.are_told() { REFRESH } else { REFRESH_UNTOLD };
        let mut refresh = Instant::now() + every;
        let mut announce = Instant::now() + jitter(ANNOUNCE_MS);
        let mut fallback = Instant::now() + FALLBACK_FIRST;
        // The links begin with a question; the next may come after the gap.
        let mut may_ask = Instant::now() + ASK_GAP;
        let mut ask = None;
        loop {
            self.ask_due().await;
            let asks = self.links.iter().filter(|l| l.asks_left > 0).map(|l| l.next_ask).min();
            let wake = [Some(refresh), Some(announce), Some(fallback), asks, ask].into_iter().flatten().min();
            let wake = wake.unwrap_or(refresh);
            tokio::select! {
                command = inbox.recv() => match command {
                    None => break,
                    Some(()) => ask = Some(may_ask.max(Instant::now())),
                },
                () = self.changes.come() => refresh = refresh.min(Instant::now() + SETTLE),
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            let now = Instant::now();
            if ask.is_some_and(|at| now >= at) {
                (ask, may_ask) = (None, now + ASK_GAP);
                self.shared.state().sightings.ask_again();
                self.links.iter_mut().for_each(begin_burst);
                fallback = fallback.min(now + FALLBACK_FIRST);
            }
            if now >= refresh {
                refresh = now + every;
                if let Ok(all) = addrs::interfaces() {
                    self.drop_gone(&self.mode.wanted(&all)).await;
                    self.adopt(self.mode.wanted(&all));
                }
            }
            if now >= announce {
                announce = now + jitter(ANNOUNCE_MS);
                self.announce().await;
            }
            if now >= fallback {
                fallback = now + FALLBACK;
                self.ask_one_by_one().await;
            }
        }
        self.shared.state().links.clear();
        for link in self.links {
            link.close().await;
        }
    }

    async fn drop_gone(&mut self, wanted: &[LocalAddr]) {
        let (stay, gone): (_, Vec<Link>) = std::mem::take(&mut self.links)
            .into_iter()
            .partition(|l| wanted.iter().any(|w| w.is_same(&l.local)));
        self.links = stay;
        for link in gone {
            link.close().await;
        }
    }

    /// Opens the links that are not open yet and tells where answers leave.
    fn adopt(&mut self, wanted: Vec<LocalAddr>) {
        for local in wanted {
            if let Some(link) = self.links.iter_mut().find(|l| l.local.is_same(&local)) {
                if local.running && !link.local.running {
                    // The cable is back, perhaps in another network.
                    begin_burst(link);
                }
                link.local = local;
                continue;
            }
            // An IPv6 address that is still checked for duplicates cannot be bound for a second
            // or two: the next round does it.
            if let Ok(mut link) = Link::open(local, &self.shared) {
                begin_burst(&mut link);
                self.links.push(link);
            }
        }
        for link in &mut self.links {
            let _ = link.try_hear(&self.shared);
        }
        let mut state = self.shared.state();
        state.deaf = self.links.iter().any(|l| !l.hears);
        state.links = self.links.iter().map(|l| (l.local.clone(), l.tx.clone())).collect();
    }

    async fn ask_due(&mut self) {
        let now = Instant::now();
        for link in self.links.iter_mut().filter(|l| l.asks_left > 0 && l.next_ask <= now) {
            link.asks_left -= 1;
            // Packets of many devices that start at once spread out.
            link.next_ask = now + if link.asks_left == 2 { jitter((150, 350)) } else { jitter((500, 800)) };
            send(&link.tx, &self.shared.packet(true, link.local.ip), link.group()).await;
        }
    }

    async fn announce(&self) {
        for link in &self.links {
            send(&link.tx, &self.shared.packet(false, link.local.ip), link.group()).await;
        }
    }

    /// For links that swallow multicast: broadcast, and each host the kernel knows of.
    async fn ask_one_by_one(&self) {
        let known = neighbours::known();
        for link in self.links.iter().filter(|l| !l.local.ip.is_loopback()) {
            let ip = link.local.ip;
            if let Some(all) = link.local.broadcast {
                let to = SocketAddr::new(all.into(), BEACON_PORT);
                send(&link.tx, &self.shared.packet(true, ip), to).await;
            }
            for host in known.iter().filter(|h| link.local.on_link(IpAddr::V4(**h))) {
                let to = SocketAddr::new((*host).into(), BEACON_PORT);
                send(&link.tx, &self.shared.packet(true, ip), to).await;
            }
        }
    }
}

fn begin_burst(link: &mut Link) {
    link.asks_left = BURST;
    link.next_ask = Instant::now();
}

/// A duration between two bounds in milliseconds. Needs no quality, only to differ per device.
fn jitter((low, high): (u64, u64)) -> Duration {
    let noise = RandomState::new().build_hasher().finish();
    Duration::from_millis(low + noise % (high - low).max(1))
}
