//! Unison: a server on the second host, a run from the first for each change.

use super::{Nodes, Program, find, first_line};
use crate::place::Place;
use crate::process::Process;
use crate::tell::Limit;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Unison, two ways.
pub struct Unison {
    program: PathBuf,
}

impl Unison {
    /// As found.
    pub fn new(tools: &Path) -> Unison {
        Unison { program: find(tools, "unison") }
    }
}

impl Program for Unison {
    fn name(&self) -> &'static str {
        "unison"
    }

    fn version(&self) -> Result<String, String> {
        first_line(&self.program, "-version")
    }

    fn durability(&self) -> &'static str {
        "none"
    }

    fn sees_changes(&self) -> bool {
        false
    }

    fn can_have_many(&self) -> bool {
        false
    }

    fn set_up<'p>(&'p self, place: &'p Place) -> Result<Box<dyn Nodes + 'p>, String> {
        Ok(Box::new(Pair { unison: self, place, server: None }))
    }
}

struct Pair<'p> {
    unison: &'p Unison,
    place: &'p Place,
    server: Option<Process>,
}

impl Pair<'_> {
    fn start(&self, host: usize, args: &[OsString]) -> Result<Process, String> {
        let host = &self.place.hosts[host];
        let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
        let mut command = host.command(&self.unison.program, &args);
        // It would ask a name server, which there is none of, for the host's own name.
        command.env("UNISON", host.state.join("unison")).env("UNISONLOCALHOSTNAME", host.name);
        Process::start(command, &host.state.join("said"))
    }
}

impl Nodes for Pair<'_> {
    fn start_first(&mut self, _limit: Limit) -> Result<(), String> {
        Ok(())
    }

    fn start_others(&mut self, limit: Limit) -> Result<(), String> {
        let (address, port) = self.place.address(0, 1);
        let args = ["-socket".into(), port.to_string(), "-listen".into(), address].map(OsString::from);
        let mut server = self.start(1, &args)?;
        // It says so when it listens.
        let has_begun = |server: &Process| server.last_words().contains("server started");
        while !has_begun(&server) {
            server.check("unison's server")?;
            limit.pause("unison's server", 2)?;
        }
        self.server = Some(server);
        Ok(())
    }

    fn run_once(&mut self, limit: Limit) -> Result<(), String> {
        let (address, port) = self.place.address(0, 1);
        let mut there = OsString::from(format!("socket://{address}:{port}/"));
        there.push(&self.place.hosts[1].dir);
        let mut args = vec![self.place.hosts[0].dir.clone().into_os_string(), there];
        // The log would hold every path.
        let options =
            ["-batch", "-auto", "-times", "-confirmbigdel=false", "-dumbtty", "-log=false", "-silent"];
        args.extend(options.map(OsString::from));
        self.start(0, &args)?.finish("unison", limit)
    }

    fn stop(&mut self, _limit: Limit) -> Result<(), String> {
        self.server = None;
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        self.server.as_mut().map_or(Ok(()), |server| server.check("unison's server"))
    }
}
