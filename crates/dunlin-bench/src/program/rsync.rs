//! rsync: a daemon on the first host, a client run on each other. One way, no index, no watching: what the
//! others cannot be cheaper than.

use super::{Nodes, Program, find, first_line};
use crate::place::Place;
use crate::process::Process;
use crate::tell::Limit;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// rsync, plain or with `--fsync`.
pub struct Rsync {
    program: PathBuf,
    fsync: bool,
}

impl Rsync {
    /// As found.
    pub fn new(tools: &Path, fsync: bool) -> Rsync {
        Rsync { program: find(tools, "rsync"), fsync }
    }
}

impl Program for Rsync {
    fn name(&self) -> &'static str {
        if self.fsync { "rsync-fsync" } else { "rsync" }
    }

    fn version(&self) -> Result<String, String> {
        first_line(&self.program, "--version")
    }

    fn durability(&self) -> &'static str {
        if self.fsync { "each file (--fsync), not its name" } else { "none" }
    }

    fn sees_changes(&self) -> bool {
        false
    }

    fn set_up<'p>(&'p self, place: &'p Place) -> Result<Box<dyn Nodes + 'p>, String> {
        Ok(Box::new(Pair { rsync: self, place, daemon: None }))
    }
}

struct Pair<'p> {
    rsync: &'p Rsync,
    place: &'p Place,
    daemon: Option<Process>,
}

/// The address as text for a command line.
fn url(place: &Place, from: usize) -> String {
    let (address, port) = place.address(from, 0);
    format!("rsync://{address}:{port}/folder/")
}

impl Nodes for Pair<'_> {
    fn start_first(&mut self, limit: Limit) -> Result<(), String> {
        let host = &self.place.hosts[0];
        let (config, pids) = (host.state.join("rsyncd.conf"), host.state.join("rsyncd.pid"));
        // Only root may say who it is; others are who they are.
        let ids = if dunlin_testkit::is_root() { "uid = 0\ngid = 0\n" } else { "" };
        let text = format!(
            "use chroot = no\nreverse lookup = no\n{ids}pid file = {}\n[folder]\npath = {}\nread only = yes\n",
            pids.display(),
            host.dir.display(),
        );
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        let _ = std::fs::remove_file(&pids);
        let (address, port) = self.place.address(1, 0);
        let option = |name: &str, value: &str| format!("--{name}={value}");
        let args = [
            "--daemon".into(),
            "--no-detach".into(),
            option("config", &config.to_string_lossy()),
            option("port", &port.to_string()),
            option("address", &address),
        ];
        let args: Vec<&OsStr> = args.iter().map(|arg: &String| arg.as_ref()).collect();
        let daemon = host.command(&self.rsync.program, &args);
        self.daemon = Some(Process::start(daemon, &host.state.join("said"))?);
        // It writes its number when it listens; the first client finds it in a moment.
        limit.until("rsync's daemon listens", || {
            self.daemon.as_mut().is_none_or(|daemon| daemon.ended().is_some()) || pids.exists()
        })?;
        self.check()
    }

    fn start_others(&mut self, _limit: Limit) -> Result<(), String> {
        Ok(())
    }

    fn run_once(&mut self, limit: Limit) -> Result<(), String> {
        let mut clients = Vec::new();
        for (i, host) in self.place.hosts.iter().enumerate().skip(1) {
            let (url, mut dir) = (url(self.place, i), host.dir.clone().into_os_string());
            dir.push("/");
            let mut args: Vec<&OsStr> = ["-a", "--delete"].map(OsStr::new).into();
            if self.rsync.fsync {
                args.push("--fsync".as_ref());
            }
            args.extend([url.as_ref(), dir.as_os_str()]);
            clients.push(Process::start(host.command(&self.rsync.program, &args), &host.state.join("said"))?);
        }
        clients.into_iter().try_for_each(|client| client.finish("rsync", limit))
    }

    fn stop(&mut self, _limit: Limit) -> Result<(), String> {
        self.daemon = None;
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        self.daemon.as_mut().map_or(Ok(()), |daemon| daemon.check("rsync's daemon"))
    }
}
