//! The arguments. The doc comments here and in `commands` are the help.

use crate::commands;
use crate::failure::Failure;
use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use dunlin_node::home::check_name;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Keeps a folder identical on any number of machines, with no server and no account.
#[derive(Debug, Parser)]
#[command(name = "dunlin", bin_name = "dunlin", version)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that may stand before or after the command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// State directory, or DUNLIN_HOME [default: ~/.local/state/dunlin]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Name of this device, kept for later runs [default: the host's name]
    #[arg(long, global = true, value_name = "NAME", value_parser = check_name)]
    pub name: Option<String>,
    /// Address to listen on [default: any, port 9000 or another when that is taken]
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Do not look for devices on the local networks
    #[arg(long, global = true)]
    pub no_discovery: bool,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// Print every change
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// End when standard input does: a node so started never outlives the program that did it
    #[arg(long, global = true, hide = true)]
    pub stop_with_stdin: bool,
}

/// The commands, one file each.
#[derive(Debug, Subcommand)]
pub enum Command {
    Share(commands::share::Share),
    Join(commands::join::Join),
    Run(commands::run::Run),
    Invite(commands::invite::Invite),
    Status(commands::status::Status),
    History(commands::history::History),
    Restore(commands::restore::Restore),
    Undo(commands::undo::Undo),
    Verify(commands::verify::Verify),
    Wait(commands::wait::Wait),
    Resume(commands::resume::Resume),
    Demo(commands::demo::Demo),
    // A later command is one file in `commands`, one line here and one in `commands::dispatch`.
    // Those that take a PATH inside a folder bring `--folder` with them.
}

/// Reads the arguments. Help and version are printed here and end the process, as a success.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Failure> {
    let args: Vec<OsString> = args.into_iter().collect();
    Cli::try_parse_from(&args).map_err(|e| match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            e.print().ok(); // to stdout; a closed one is no error
            std::process::exit(0)
        }
        _ => Failure::usage(what_is_wrong(&e), hint(&e, &args)),
    })
}

/// The first paragraph of clap's message as one line.
fn what_is_wrong(e: &clap::Error) -> String {
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no command was given".to_owned();
    }
    let text = e.render().to_string();
    let first = text.strip_prefix("error: ").unwrap_or(&text).split("\n\n").next().unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What clap suggests, else where the help is.
fn hint(e: &clap::Error, args: &[OsString]) -> String {
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue] {
        match e.get(kind) {
            Some(clap::error::ContextValue::String(s)) => return format!("did you mean {s}?"),
            Some(clap::error::ContextValue::Strings(s)) if !s.is_empty() => {
                return format!("did you mean {}?", s.join(" or "));
            }
            _ => {}
        }
    }
    let command = Cli::command();
    let named = args.iter().skip(1).find_map(|a| command.find_subcommand(a));
    match named {
        Some(named) => format!("dunlin {} --help tells how it is used", named.get_name()),
        None => "dunlin --help lists the commands".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Cli, Failure> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            "dunlin --home /h --name x --listen 127.0.0.1:0 --no-discovery --json -v share /f",
            "dunlin share --home /h --name x --listen 127.0.0.1:0 --no-discovery --json -v /f",
            "dunlin --home /h --json share /f --name x --listen 127.0.0.1:0 --no-discovery -v",
        ] {
            let cli = parse_line(line).unwrap();
            let g = cli.globals;
            assert_eq!(g.home, Some("/h".into()), "{line}");
            assert_eq!(g.name.as_deref(), Some("x"));
            assert_eq!(g.listen, Some("127.0.0.1:0".parse().unwrap()));
            assert!(g.no_discovery && g.json && g.verbose);
            assert!(matches!(cli.command, Command::Share(_)));
        }
    }

    #[test]
    fn wrong_usage_is_one_line_and_a_hint() {
        let told = |line: &str| {
            let failure = parse_line(line).unwrap_err();
            assert_eq!(failure.code, 2, "{line}");
            assert!(!failure.message.contains('\n'));
            format!("{} | {}", failure.message, failure.hint)
        };
        assert_eq!(told("dunlin"), "no command was given | dunlin --help lists the commands");
        insta::assert_snapshot!(told("dunlin shar /f"), @"unrecognized subcommand 'shar' | did you mean share?");
        insta::assert_snapshot!(told("dunlin share"), @"the following required arguments were not provided: <FOLDER> | dunlin share --help tells how it is used");
        insta::assert_snapshot!(told("dunlin status --jsn"), @"unexpected argument '--jsn' found | did you mean --json?");
        insta::assert_snapshot!(told("dunlin run --listen nowhere"), @"invalid value 'nowhere' for '--listen <ADDR:PORT>': invalid socket address syntax | dunlin run --help tells how it is used");
        insta::assert_snapshot!(told("dunlin wait --timeout -1"), @"unexpected argument '-1' found | dunlin wait --help tells how it is used");
        insta::assert_snapshot!(told("dunlin wait --timeout=x"), @"invalid value 'x' for '--timeout <S>': not a number of seconds | dunlin wait --help tells how it is used");
        insta::assert_snapshot!(told("dunlin resume /f"), @"the following required arguments were not provided: <--accept|--reject|--unite> | dunlin resume --help tells how it is used");
        insta::assert_snapshot!(told("dunlin resume --accept --reject"), @"the argument '--accept' cannot be used with '--reject' | dunlin resume --help tells how it is used");
        insta::assert_snapshot!(told("dunlin wait --copies 0"), @"invalid value '0' for '--copies <N>': 0 is not in 1..=4294967295 | dunlin wait --help tells how it is used");
        insta::assert_snapshot!(told(&format!("dunlin run --name {}", "x".repeat(65))), @"invalid value 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' for '--name <NAME>': a device name must not be longer than 64 characters | dunlin run --help tells how it is used");
    }
}
