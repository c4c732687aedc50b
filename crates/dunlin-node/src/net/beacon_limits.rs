//! What keeps the beacon cheap under a flood and its memory bounded. Pure: the caller gives the time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Devices remembered; the one silent longest goes first.
const MAX_DEVICES: usize = 1024;
/// Addresses remembered for one device.
const MAX_ADDRS: usize = 8;
/// How long an address is remembered without a new packet: more than twice the announcements' gap.
const FORGET: Duration = Duration::from_secs(75);
/// Sources with a rate of their own; the rest share the overall one.
const MAX_SOURCES: usize = 512;
/// How much older than a device's newest packet another of its packets may be, in its own
/// milliseconds: several links deliver out of order.
const REORDER_MS: u64 = 5_000;
/// An unchanged sighting is not repeated within this time.
const REPEAT: Duration = Duration::from_secs(1);

/// Lets `rate` things a second through, and `burst` at once after a pause.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: f64,
    burst: f64,
    level: f64,
    last: Instant,
}

impl Bucket {
    pub(super) fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Bucket { rate, burst, level: burst, last: now }
    }

    pub(super) fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.last).as_secs_f64() * self.rate;
        self.level = (self.level + gained).min(self.burst);
        self.last = now;
        if self.level < 1.0 {
            return false;
        }
        self.level -= 1.0;
        true
    }
}

/// Who may cost us a signature check now.
#[derive(Debug)]
pub(super) struct Admission {
    all: Bucket,
    sources: HashMap<IpAddr, Bucket>,
}

impl Admission {
    pub(super) fn new(now: Instant) -> Self {
        // At most 3 to 5 % of one core goes into checking signatures.
        Admission { all: Bucket::new(500.0, 1000.0, now), sources: HashMap::new() }
    }

    pub(super) fn admit(&mut self, source: IpAddr, now: Instant) -> bool {
        // Loopback is this machine's own nodes: they may be many at one address.
        let (rate, burst) = if source.is_loopback() { (200.0, 400.0) } else { (20.0, 60.0) };
        if !self.sources.contains_key(&source) && self.sources.len() >= MAX_SOURCES {
            // Those who were silent long enough to have a full allowance lose nothing.
            self.sources.retain(|_, b| now.saturating_duration_since(b.last) < Duration::from_secs(3));
            if self.sources.len() >= MAX_SOURCES {
                // So many sources in 3 s are a forged flood: the overall limit must do.
                return self.all.take(now);
            }
        }
        let own = self.sources.entry(source).or_insert_with(|| Bucket::new(rate, burst, now));
        own.take(now) && self.all.take(now)
    }
}

#[derive(Debug)]
struct Address {
    addr: SocketAddr,
    seq: u64,
    heard: Instant,
}

#[derive(Debug)]
struct Device {
    newest: u64,
    heard: Instant,
    told: Option<Instant>,
    addrs: Vec<Address>,
}

/// The devices heard lately.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    devices: HashMap<[u8; 32], Device>,
}

impl Sightings {
    /// Whether a packet would be news: neither said before from there nor older than what its
    /// device said lately. Asked before the signature is checked, so it changes nothing.
    pub(super) fn is_fresh(&self, device: &[u8; 32], ip: IpAddr, seq: u64, now: Instant) -> bool {
        let Some(known) = self.devices.get(device) else { return true };
        // A device whose clock was set back is heard again once it was forgotten.
        if now.saturating_duration_since(known.heard) > FORGET {
            return true;
        }
        let before = known.addrs.iter().any(|a| a.addr.ip() == ip && a.seq >= seq);
        !before && seq.saturating_add(REORDER_MS) >= known.newest
    }

    /// Notes a verified packet; gives the addresses to tell of, latest first, if that is worth it.
    pub(super) fn note(
        &mut self,
        device: [u8; 32],
        addr: SocketAddr,
        seq: u64,
        now: Instant,
    ) -> Option<Vec<SocketAddr>> {
        if !self.devices.contains_key(&device) && self.devices.len() >= MAX_DEVICES {
            let oldest = self.devices.iter().min_by_key(|(_, d)| d.heard).map(|(k, _)| *k)?;
            self.devices.remove(&oldest);
        }
        let known = self.devices.entry(device).or_insert(Device {
            newest: 0,
            heard: now,
            told: None,
            addrs: Vec::new(),
        });
        if now.saturating_duration_since(known.heard) > FORGET {
            known.newest = 0;
        }
        known.newest = known.newest.max(seq);
        known.heard = now;
        known.addrs.retain(|a| now.saturating_duration_since(a.heard) <= FORGET);
        let news = !known.addrs.iter().any(|a| a.addr == addr);
        // The same IP with another port is a device that was started anew: the old port is dead.
        known.addrs.retain(|a| a.addr.ip() != addr.ip());
        known.addrs.insert(0, Address { addr, seq, heard: now });
        known.addrs.truncate(MAX_ADDRS);
        let repeat = known.told.is_none_or(|t| now.saturating_duration_since(t) >= REPEAT);
        if !news && !repeat {
            return None;
        }
        known.told = Some(now);
        Some(known.addrs.iter().map(|a| a.addr).collect())
    }

    /// Makes the next packet of each device worth telling again.
    pub(super) fn ask_again(&mut self) {
        for d in self.devices.values_mut() {
            d.told = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn replay_and_reordering() {
        let (mut s, now, dev) = (Sightings::default(), Instant::now(), [1; 32]);
        let (a, b) = (at("10.0.0.1:9000"), at("10.1.0.1:9000"));
        assert!(s.is_fresh(&dev, a.ip(), 100_000, now));
        assert_eq!(s.note(dev, a, 100_000, now), Some(vec![a]));
        assert!(!s.is_fresh(&dev, a.ip(), 100_000, now), "the same packet again");
        assert!(!s.is_fresh(&dev, a.ip(), 99_999, now));
        assert!(s.is_fresh(&dev, b.ip(), 99_999, now), "another link may be slower");
        assert!(!s.is_fresh(&dev, b.ip(), 90_000, now), "recorded long ago");
        assert_eq!(s.note(dev, b, 99_999, now), Some(vec![b, a]));
        assert_eq!(s.note(dev, b, 100_001, now), None, "nothing new");
        let later = now + FORGET + Duration::from_secs(1);
        assert!(s.is_fresh(&dev, a.ip(), 5, later), "a clock set back is forgiven in the end");
        assert_eq!(s.note(dev, a, 5, later), Some(vec![a]));
    }

    #[test]
    fn a_new_port_replaces_the_old_one() {
        let (mut s, now) = (Sightings::default(), Instant::now());
        s.note([1; 32], at("10.0.0.1:1"), 1, now);
        assert_eq!(s.note([1; 32], at("10.0.0.1:2"), 2, now), Some(vec![at("10.0.0.1:2")]));
    }

    #[test]
    fn tables_are_bounded() {
        let (mut s, start) = (Sightings::default(), Instant::now());
        for i in 0..3000_u32 {
            let mut dev = [0; 32];
            dev[..4].copy_from_slice(&i.to_be_bytes());
            s.note(dev, at("10.0.0.1:1"), 1, start + Duration::from_millis(i.into()));
        }
        assert_eq!(s.devices.len(), MAX_DEVICES);
        let mut adm = Admission::new(start);
        let mut passed = 0;
        for i in 0..100_000_u32 {
            passed += u32::from(adm.admit(IpAddr::V4(i.into()), start));
        }
        assert!(passed <= 1000 && adm.sources.len() <= MAX_SOURCES, "{passed}");
    }

    #[test]
    fn one_source_cannot_take_all() {
        let now = Instant::now();
        let mut adm = Admission::new(now);
        let noisy = at("10.0.0.1:1").ip();
        let passed = (0..100_000).filter(|_| adm.admit(noisy, now)).count();
        assert_eq!(passed, 60);
        assert!(adm.admit(at("10.0.0.2:1").ip(), now));
        assert!(adm.admit(noisy, now + Duration::from_secs(1)));
    }
}
