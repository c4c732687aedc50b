//! Hosts of a test's own, in network namespaces.

use std::process::Command;

/// Network namespaces, one a host, joined by a switch of their own; gone when dropped. Needs root.
pub struct Lan {
    prefix: String,
    hosts: Vec<String>,
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}

/// What stands before a program so that it runs in a network namespace. `ip netns exec` would give it mounts of its own: what
/// another test mounts and unmounts meanwhile would stay mounted there, be in use, and not be on its disk.
pub fn in_netns(ns: &str) -> [String; 2] {
    ["nsenter".into(), format!("--net=/var/run/netns/{ns}")]
}

impl Lan {
    /// Hosts with loopback and an `eth0` each, without any address of IPv4.
    pub fn new(hosts: &[&str]) -> Lan {
        static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut lan = Lan { prefix: format!("dl{}x{n}", std::process::id()), hosts: Vec::new() };
        lan.add_ns("switch");
        lan.on("switch", &["link", "add", "br0", "type", "bridge"]);
        lan.on("switch", &["link", "set", "br0", "up"]);
        for host in hosts {
            lan.add_ns(host);
            lan.plug(host, "eth0");
        }
        lan
    }

    fn add_ns(&mut self, host: &str) {
        ip(&["netns", "add", &self.ns(host)]);
        self.hosts.push(host.to_owned());
        self.on(host, &["link", "set", "lo", "up"]);
    }

    /// The namespace of a host.
    pub fn ns(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Runs `ip` in the namespace of a host.
    pub fn on(&self, host: &str, args: &[&str]) {
        ip(&[&["-n", &self.ns(host)], args].concat());
    }

    /// Connects a host to the switch.
    fn plug(&self, host: &str, device: &str) {
        self.plug_into(&self.ns(host), host, device);
    }

    fn plug_into(&self, ns: &str, port: &str, device: &str) {
        let (switch, port) = (self.ns("switch"), &format!("port-{port}"));
        ip(&[
            "-n", &switch, "link", "add", "name", port, "type", "veth", "peer", "name", device, "netns", ns,
        ]);
        self.on("switch", &["link", "set", port, "master", "br0"]);
        self.on("switch", &["link", "set", port, "up"]);
        ip(&["-n", ns, "link", "set", device, "up"]);
    }

    /// Connects a host of another network to this one's switch too.
    pub fn plug_other(&self, other: &Lan, host: &str, device: &str) {
        self.plug_into(&other.ns(host), &format!("{host}2"), device);
    }

    /// Gives a host's `eth0` this address (such as `10.0.0.1/24`) and no other.
    pub fn address(&self, host: &str, address: &str) {
        self.on(host, &["-4", "address", "flush", "dev", "eth0"]);
        self.on(host, &["address", "add", address, "dev", "eth0"]);
    }

    /// Bytes that a host's `eth0` has received.
    pub fn received(&self, host: &str) -> u64 {
        self.counted(host).iter().find(|(device, _, _)| device == "eth0").unwrap().1
    }

    /// What a file of the kernel says there.
    pub fn reads(&self, host: &str, file: &str) -> String {
        let [enter, ns] = in_netns(&self.ns(host));
        let output = Command::new(enter).args([&ns, "cat", file]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// The devices of a host but loopback, each with the bytes it has received and sent.
    pub fn counted(&self, host: &str) -> Vec<(String, u64, u64)> {
        let text = self.reads(host, "/proc/net/dev");
        let device = |line: &str| {
            let (name, counts) = line.split_once(':')?;
            let counts: Vec<u64> = counts.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            Some((name.trim().to_owned(), *counts.first()?, *counts.get(8)?))
        };
        text.lines().filter_map(device).filter(|(name, _, _)| name != "lo").collect()
    }

    /// Limits what a host sends and receives to so many Mbit/s each. Needs `tc` with the queue `tbf`.
    pub fn limit(&self, host: &str, mbit: u32) {
        let rate = format!("{mbit}mbit");
        let ends = [(self.ns(host), "eth0".to_owned()), (self.ns("switch"), format!("port-{host}"))];
        for (ns, device) in ends {
            let args = ["-n", &ns, "qdisc", "add", "dev", &device, "root", "tbf", "rate", &rate];
            let shape = ["burst", "64k", "latency", "50ms"];
            let output = Command::new("tc").args(args).args(shape).output().unwrap();
            assert!(output.status.success(), "tc: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = Command::new("ip").args(["netns", "delete", &self.ns(host)]).output();
        }
    }
}
