//! Where one program does one workload: a directory, a host for each node, a wire between them.

use crate::meter::Groups;
use dunlin_testkit::{BadSwitch, Lan, Mount, can, is_root};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Ports where there are no namespaces, for each host one.
const LOOPBACK_PORT: u16 = 42_170;
/// The port of a peer in a namespace of its own.
const PORT: u16 = 22_000;

/// How the hosts are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire {
    /// All on one switch.
    Switch,
    /// All on one switch, with so many Mbit/s for each host and direction.
    Limited(u32),
    /// The first two on one, the last two on another: only the one in the middle knows both.
    Line,
    /// A round trip of so many milliseconds; a part of the packets is lost.
    Far {
        /// Both ways together.
        round_trip_ms: f64,
        /// Of one.
        lost: f64,
    },
}

/// A host, and the node on it.
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// The folder.
    pub dir: PathBuf,
    /// What the program keeps beside it.
    pub state: PathBuf,
    netns: Option<String>,
    group: Option<PathBuf>,
    has_own_pids: bool,
}

/// A place; gone when dropped, with all that runs there.
pub struct Place {
    /// The hosts; the first is where changes are made.
    pub hosts: Vec<Host>,
    /// How they are joined.
    pub wire: Wire,
    /// What counts the processor's time of each host.
    pub groups: Groups,
    base: PathBuf,
    _bad: Option<BadSwitch>,
    lans: Vec<Lan>,
    _disk: Option<Mount>,
    _temp: tempfile::TempDir,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Whether every node gets a network of its own; without it, all share loopback.
pub fn has_namespaces() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let name = format!("dunlin-bench-probe-{}", std::process::id());
        let made = is_root() && can("own networks", "ip", &["netns", "add", &name]);
        made && can("own networks", "ip", &["netns", "delete", &name])
    })
}

fn has_own_pids() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        is_root() && can("own processes", "unshare", &["--pid", "--fork", "--kill-child", "true"])
    })
}

fn has_setpriv() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| can("an end with this program", "setpriv", &["--pdeathsig", "KILL", "true"]))
}

/// Whether links can be limited.
pub fn can_limit() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let lan = Lan::new(&["a"]);
        let device = ["-n", &lan.ns("a"), "qdisc", "add", "dev", "eth0", "root"];
        let shape = ["tbf", "rate", "200mbit", "burst", "64k", "latency", "50ms"];
        can("limited links", "tc", &[&device[..], &shape[..]].concat())
    })
}

impl Wire {
    /// Why there is no such wire here.
    pub fn lacks(self) -> Option<String> {
        let own = has_namespaces();
        match self {
            Wire::Switch => None,
            _ if !own => Some("needs network namespaces (root)".into()),
            Wire::Limited(_) if !can_limit() => Some("`tc` has no queue `tbf` here".into()),
            Wire::Far { .. }
                if !can("a far network", "python3", &["-c", "open('/dev/net/tun', 'rb+', 0)"]) =>
            {
                Some("python3 and /dev/net/tun are needed".into())
            }
            _ => None,
        }
    }
}

impl Place {
    /// A place of its own below `work` for so many hosts; on a file system of its own of so many GB, if
    /// any are given.
    pub fn new(work: &Path, count: usize, wire: Wire, disk_gb: Option<u64>) -> Result<Place, String> {
        let temp = tempfile::Builder::new().prefix("place-").tempdir_in(work).map_err(|e| e.to_string())?;
        let mut base = temp.path().canonicalize().map_err(|e| e.to_string())?;
        let mut disk = None;
        if let Some(gb) = disk_gb {
            let at = base.join("disk");
            disk = Some(Mount::ext4(&base.join("image"), &at, gb << 10, "relatime"));
            base = at;
        }
        let names = &NAMES[..count];
        let groups = Groups::new(names);
        let (mut lans, mut bad) = (Vec::new(), None);
        if has_namespaces() {
            (lans, bad) = networks(names, wire);
        }
        let netns = |name: &str| {
            let second = wire == Wire::Line && name == "c";
            lans.get(usize::from(second)).map(|lan: &Lan| lan.ns(name))
        };
        let host = |name: &'static str| Host {
            name,
            dir: base.join(name).join("folder"),
            state: base.join(name).join("state"),
            netns: netns(name),
            group: groups.of(name),
            has_own_pids: has_own_pids(),
        };
        let hosts: Vec<Host> = names.iter().map(|name| host(name)).collect();
        for host in &hosts {
            for dir in [&host.dir, &host.state] {
                std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            }
        }
        Ok(Place { hosts, wire, groups, base, _bad: bad, lans, _disk: disk, _temp: temp })
    }

    /// A directory on the same file system, beside the folders.
    pub fn beside(&self) -> &Path {
        &self.base
    }

    /// Where `from` reaches `to`: address and port.
    pub fn address(&self, from: usize, to: usize) -> (String, u16) {
        if !has_namespaces() {
            return ("127.0.0.1".into(), LOOPBACK_PORT + to as u16);
        }
        let n = to + 1;
        let address = match self.wire {
            Wire::Line if from == 2 || to == 2 => format!("10.80.0.{n}"),
            Wire::Far { .. } => format!("10.79.0.{n}"),
            _ => format!("10.78.0.{n}"),
        };
        (address, PORT)
    }

    /// Who talks to whom: on a line only neighbours do.
    pub fn knows(&self, one: usize, other: usize) -> bool {
        one != other && (self.wire != Wire::Line || one.abs_diff(other) == 1)
    }

    /// Bytes received so far by each host; nothing where all share loopback.
    pub fn received(&self) -> Option<Vec<u64>> {
        let lan_of = |host: &Host| {
            let ns = host.netns.as_ref()?;
            self.lans.iter().find(|lan| lan.ns(host.name) == *ns)
        };
        let of = |host| lan_of(host).map(|lan| lan.counted(host.name).iter().map(|(_, rx, _)| rx).sum());
        self.hosts.iter().map(of).collect()
    }
}

fn networks(names: &[&str], wire: Wire) -> (Vec<Lan>, Option<BadSwitch>) {
    if wire == Wire::Line {
        let (one, two) = (Lan::new(&names[..2]), Lan::new(&names[2..]));
        one.address("a", "10.78.0.1/24");
        one.address("b", "10.78.0.2/24");
        two.plug_other(&one, "b", "eth1");
        one.on("b", &["address", "add", "10.80.0.2/24", "dev", "eth1"]);
        two.address("c", "10.80.0.3/24");
        return (vec![one, two], None);
    }
    let lan = Lan::new(names);
    if let Wire::Far { round_trip_ms, lost } = wire {
        let delay_s = round_trip_ms / 2000.0;
        let how = [lost, delay_s, 0.0, 0.0, 0.0].map(|x| x.to_string());
        let bad = BadSwitch::new(&lan, names, &how);
        return (vec![lan], Some(bad));
    }
    for (i, name) in names.iter().enumerate() {
        lan.address(name, &format!("10.78.0.{}/24", i + 1));
        if let Wire::Limited(mbit) = wire {
            lan.limit(name, mbit);
        }
    }
    (vec![lan], None)
}

/// Puts itself into the group named first and becomes the rest.
const ENTER: &str = r#"echo 0 > "$0/cgroup.procs" && exec "$@""#;

impl Host {
    /// What stands before a program so that it runs on this host, is counted, and never outlives this
    /// program, however that ends. With `forks`, what it leaves behind ends with it too.
    pub fn wrapper(&self, forks: bool) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        let mut add = |words: &[&OsStr]| all.extend(words.iter().map(OsString::from));
        if let Some(group) = &self.group {
            add(&["sh".as_ref(), "-c".as_ref(), ENTER.as_ref(), group.as_os_str()]);
        }
        if let Some(ns) = &self.netns {
            add(&["ip".as_ref(), "netns".as_ref(), "exec".as_ref(), ns.as_ref()]);
        }
        if has_setpriv() {
            add(&["setpriv", "--pdeathsig", "KILL"].map(OsStr::new));
        }
        if forks && self.has_own_pids {
            add(&["unshare", "--pid", "--fork", "--kill-child=KILL"].map(OsStr::new));
        }
        all
    }

    /// A program on this host.
    pub fn command(&self, program: &Path, args: &[&OsStr]) -> Command {
        let mut words = self.wrapper(true);
        words.push(program.into());
        words.extend(args.iter().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.state).env("HOME", &self.state);
        for name in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command
    }
}
