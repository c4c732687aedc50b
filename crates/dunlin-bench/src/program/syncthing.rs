//! Syncthing, as it comes and with its watcher as quick as it lets it be. Nothing outside is contacted: no
//! discovery, no relays, no reports, no upgrades.

use super::{Nodes, Program, find, first_line};
use crate::place::{Host, Place};
use crate::process::Process;
use crate::tell::Limit;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const FOLDER: &str = "bench";
const KEY: &str = "of-a-benchmark";

/// Syncthing, tuned or not.
pub struct Syncthing {
    program: PathBuf,
    tuned: bool,
}

impl Syncthing {
    /// As found.
    pub fn new(tools: &Path, tuned: bool) -> Syncthing {
        Syncthing { program: find(tools, "syncthing"), tuned }
    }

    /// Seconds for which its watcher collects. It takes 0 for "do not watch"; version 1 counts whole ones.
    fn watcher_delay(&self) -> &'static str {
        let is_old = self.version().is_ok_and(|version| version.starts_with("syncthing v1."));
        match (self.tuned, is_old) {
            (false, _) => "10",
            (true, true) => "1",
            (true, false) => "0.01",
        }
    }
}

impl Program for Syncthing {
    fn name(&self) -> &'static str {
        if self.tuned { "syncthing-tuned" } else { "syncthing" }
    }

    fn version(&self) -> Result<String, String> {
        let line = first_line(&self.program, "--version")?;
        Ok(line.split(" (").next().unwrap_or_default().to_owned())
    }

    fn durability(&self) -> &'static str {
        if self.tuned {
            "each file and its directory (its default); watcher delay as small as it takes: 1 s (version 1), 0.01 s (2)"
        } else {
            "each file and its directory (its default)"
        }
    }

    fn sees_changes(&self) -> bool {
        true
    }

    fn set_up<'p>(&'p self, place: &'p Place) -> Result<Box<dyn Nodes + 'p>, String> {
        let ids: Vec<String> =
            place.hosts.iter().map(|host| self.generate(host)).collect::<Result<_, _>>()?;
        let delay = self.watcher_delay();
        for (i, host) in place.hosts.iter().enumerate() {
            let text = config(place, i, &ids, delay);
            fs::write(host.state.join("config.xml"), text).map_err(|e| e.to_string())?;
            fs::create_dir_all(host.dir.join(".stfolder")).map_err(|e| e.to_string())?;
        }
        Ok(Box::new(Flock { syncthing: self, place, running: Vec::new(), knows_all: false }))
    }
}

impl Syncthing {
    /// Makes a device; its id.
    fn generate(&self, host: &Host) -> Result<String, String> {
        let home = host.state.as_os_str();
        let mut command = host.command(&self.program, &["generate".as_ref(), "--home".as_ref(), home]);
        command.env("STNODEFAULTFOLDER", "1").stdin(Stdio::null());
        let output = command.output().map_err(|e| e.to_string())?;
        let made = fs::read_to_string(host.state.join("config.xml")).unwrap_or_default();
        let id = made.split("<device id=\"").nth(1).and_then(|rest| rest.split('"').next());
        id.map(str::to_owned).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn start(&self, host: &Host) -> Result<Process, String> {
        let home = host.state.as_os_str();
        let args = ["serve".as_ref(), "--no-browser".as_ref(), "--home".as_ref(), home];
        let mut command = host.command(&self.program, &args);
        command.env("STNOUPGRADE", "1");
        Process::start(command, &host.state.join("said"))
    }
}

fn config(place: &Place, me: usize, ids: &[String], delay: &str) -> String {
    let peers: Vec<usize> = (0..ids.len()).filter(|i| *i == me || place.knows(me, *i)).collect();
    let (mut shared, mut devices, mut listen) = (String::new(), String::new(), Vec::new());
    for i in &peers {
        let id = &ids[*i];
        let _ = write!(shared, "<device id=\"{id}\"></device>");
        let address = if *i == me {
            "dynamic".into()
        } else {
            let (address, port) = place.address(me, *i);
            let (own, own_port) = place.address(*i, me);
            listen.push(format!("<listenAddress>tcp://{own}:{own_port}</listenAddress>"));
            format!("tcp://{address}:{port}")
        };
        let name = place.hosts[*i].name;
        let _ = write!(
            devices,
            "<device id=\"{id}\" name=\"{name}\" compression=\"metadata\"><address>{address}</address></device>"
        );
    }
    listen.dedup();
    let (listen, host) = (listen.concat(), &place.hosts[me]);
    let (dir, socket) = (host.dir.display(), socket(host));
    let socket = socket.display();
    format!(
        r#"<configuration version="35">
<folder id="{FOLDER}" label="{FOLDER}" path="{dir}" type="sendreceive" rescanIntervalS="3600"
 fsWatcherEnabled="true" fsWatcherDelayS="{delay}" ignorePerms="false" autoNormalize="true">
<filesystemType>basic</filesystemType>{shared}<minDiskFree unit="%">0</minDiskFree></folder>
{devices}
<gui enabled="true" tls="false"><address>{socket}</address><apikey>{KEY}</apikey></gui>
<options>{listen}<globalAnnounceEnabled>false</globalAnnounceEnabled>
<localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled>
<natEnabled>false</natEnabled><startBrowser>false</startBrowser><urAccepted>-1</urAccepted><urSeen>3</urSeen>
<autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled>
<stunKeepaliveStartS>0</stunKeepaliveStartS><setLowPriority>false</setLowPriority></options>
</configuration>
"#
    )
}

fn socket(host: &Host) -> PathBuf {
    host.state.join("gui")
}

/// One request to its API; nothing if it does not answer.
fn ask(host: &Host, path: &str) -> Option<serde_json::Value> {
    let mut stream = UnixStream::connect(socket(host)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

struct Flock<'p> {
    syncthing: &'p Syncthing,
    place: &'p Place,
    running: Vec<Process>,
    knows_all: bool,
}

impl Nodes for Flock<'_> {
    fn start_first(&mut self, limit: Limit) -> Result<(), String> {
        let host = &self.place.hosts[0];
        self.running.push(self.syncthing.start(host)?);
        if self.knows_all {
            return Ok(());
        }
        let files = crate::material::count_files(&host.dir);
        let has_all = |status: serde_json::Value| {
            status["state"] == "idle" && status["localFiles"].as_u64().is_some_and(|n| n >= files)
        };
        loop {
            if ask(host, &format!("/rest/db/status?folder={FOLDER}")).is_some_and(has_all) {
                return Ok(());
            }
            self.check()?;
            limit.pause("syncthing has indexed", 20)?;
        }
    }

    fn start_others(&mut self, _limit: Limit) -> Result<(), String> {
        for host in &self.place.hosts[1..] {
            self.running.push(self.syncthing.start(host)?);
        }
        self.knows_all = true;
        Ok(())
    }

    fn run_once(&mut self, _limit: Limit) -> Result<(), String> {
        Ok(())
    }

    fn stop(&mut self, limit: Limit) -> Result<(), String> {
        for host in &self.place.hosts {
            // The request ends with the program, mostly before it is answered.
            if let Ok(mut stream) = UnixStream::connect(socket(host)) {
                let head = "POST /rest/system/shutdown HTTP/1.0\r\nHost: localhost";
                let _ = write!(stream, "{head}\r\nX-API-Key: {KEY}\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
        for process in &mut self.running {
            limit.until("syncthing ends", || process.ended().is_some())?;
        }
        self.running.clear();
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        self.running.iter_mut().try_for_each(|process| process.check("syncthing"))
    }
}
