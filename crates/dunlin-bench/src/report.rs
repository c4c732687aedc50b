//! What was measured, as a table, as Markdown and as JSON.

mod machine;
mod plot;

use crate::meter::Values;
use crate::program::Program;
use crate::workload::Workload;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// With whom all others are compared.
const OURS: &str = "dunlin";

/// How one run of one program ended.
pub enum Outcome {
    /// The trees were equal, by hash.
    Done(Values),
    /// It is nothing for this program, or not possible here.
    Skipped(String),
    /// It came to no good end.
    Failed(String),
}

impl Outcome {
    /// In a few words.
    pub fn words(&self, headline: &str) -> String {
        match self {
            Outcome::Done(values) => match values.get(headline) {
                Some(value) => format!("{headline} {}", figure(*value)),
                None => format!("no {headline}"),
            },
            Outcome::Skipped(why) => format!("SKIPPED: {why}"),
            Outcome::Failed(why) => format!("FAILED: {why}"),
        }
    }
}

/// Everything measured so far.
pub struct Report {
    out: PathBuf,
    machine: Vec<(&'static str, String)>,
    scale: f64,
    runs: usize,
    programs: Vec<Value>,
    sections: Vec<Section>,
}

struct Section {
    name: String,
    what: String,
    headline: &'static str,
    point: Option<(&'static str, f64)>,
    rows: Vec<Row>,
}

struct Row {
    program: &'static str,
    /// Of all runs.
    runs: Vec<Values>,
    /// The medians, of each value by itself.
    median: Values,
    skipped: Option<String>,
    failed: Option<String>,
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    if all.len().is_multiple_of(2) { (all[middle - 1] + all[middle]) / 2.0 } else { all[middle] }
}

fn row(program: &'static str, outcomes: Vec<Outcome>) -> Row {
    let mut row = Row { program, runs: Vec::new(), median: Values::new(), skipped: None, failed: None };
    for outcome in outcomes {
        match outcome {
            Outcome::Done(values) => row.runs.push(values),
            Outcome::Skipped(why) => row.skipped = Some(why),
            Outcome::Failed(why) => row.failed = Some(why),
        }
    }
    for name in row.runs.iter().flat_map(Values::keys) {
        let all: Vec<f64> = row.runs.iter().filter_map(|values| values.get(name)).copied().collect();
        row.median.insert(name.clone(), median(all));
    }
    row
}

impl Report {
    /// An empty one, of runs in `work_dir`.
    pub fn new(out: &Path, work_dir: &Path, scale: f64, runs: usize) -> Report {
        let machine = machine::facts(work_dir);
        Report { out: out.into(), machine, scale, runs, programs: Vec::new(), sections: Vec::new() }
    }

    /// Whether each run has a file system of its own.
    pub fn disk(&mut self, gb: Option<u64>) {
        if let Some(gb) = gb {
            let fact = format!("a new ext4 of {gb} GB for each run, in a file on that one");
            self.machine.push(("place", fact));
        }
    }

    /// A program that takes part.
    pub fn program(&mut self, program: &dyn Program, version: String) {
        let (name, durable) = (program.name(), program.durability());
        self.programs.push(json!({ "name": name, "version": version, "durable": durable }));
    }

    /// A workload that was done; its table.
    pub fn add(&mut self, work: &Workload, outcomes: Vec<(&'static str, Vec<Outcome>)>) -> Vec<String> {
        let rows = outcomes.into_iter().map(|(program, outcomes)| row(program, outcomes)).collect();
        let section = Section {
            name: work.name.clone(),
            what: work.what.clone(),
            headline: work.headline,
            point: work.point,
            rows,
        };
        let table = section.table();
        self.sections.push(section);
        table
    }

    /// Whether a program failed at something.
    pub fn has_failures(&self) -> bool {
        self.sections.iter().flat_map(|section| &section.rows).any(|row| row.failed.is_some())
    }

    /// Writes all of it.
    pub fn write(&self) -> Result<(), String> {
        let write = |name: &str, text: &str| {
            let path = self.out.join(name);
            std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
        };
        let json = serde_json::to_string_pretty(&self.json()).map_err(|e| e.to_string())?;
        write("report.json", &json)?;
        let mut plots = Vec::new();
        for (axis, unit) in [("files", "files of 1 KiB"), ("megabytes", "MB in one file")] {
            for (value, label) in [("wall_s", "seconds"), ("cpu_s", "seconds of processors")] {
                let lines = self.lines(axis, value);
                if lines.iter().any(|(_, points)| points.len() > 1) {
                    let name = format!("{axis}-{value}.svg");
                    plot::draw(&self.out.join(&name), &format!("First sync: {label}"), unit, &lines)?;
                    plots.push(name);
                }
            }
        }
        write("report.md", &self.markdown(&plots))
    }

    /// A line for each program: sizes and values.
    fn lines(&self, axis: &str, value: &str) -> Vec<(String, Vec<(f64, f64)>)> {
        let names = self.programs.iter().filter_map(|p| p["name"].as_str());
        let point = |section: &Section, name: &str| {
            let (_, size) = section.point.filter(|(on, _)| *on == axis)?;
            let row = section.rows.iter().find(|row| row.program == name)?;
            Some((size * self.scale, *row.median.get(value)?))
        };
        let points = |name: &str| self.sections.iter().filter_map(|s| point(s, name)).collect();
        names.map(|name| (name.to_owned(), points(name))).collect()
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "program": row.program, "runs": row.runs, "median": row.median,
                "skipped": row.skipped, "failed": row.failed,
            })
        };
        let section = |s: &Section| {
            let rows: Vec<Value> = s.rows.iter().map(row).collect();
            json!({ "name": s.name, "what": s.what, "headline": s.headline, "programs": rows })
        };
        let machine: serde_json::Map<String, Value> =
            self.machine.iter().map(|(name, fact)| ((*name).to_owned(), json!(fact))).collect();
        json!({
            "machine": machine, "scale": self.scale, "runs": self.runs, "programs": self.programs,
            "workloads": self.sections.iter().map(section).collect::<Vec<_>>(),
        })
    }

    fn markdown(&self, plots: &[String]) -> String {
        let mut out = format!("# Benchmark\n\nScale {}, medians of {} runs.\n\n", self.scale, self.runs);
        for (name, fact) in &self.machine {
            let _ = writeln!(out, "- {name}: {fact}");
        }
        out.push_str("\n| program | version | made durable |\n|---|---|---|\n");
        for program in &self.programs {
            let word = |key: &str| program[key].as_str().unwrap_or_default();
            let _ = writeln!(out, "| {} | {} | {} |", word("name"), word("version"), word("durable"));
        }
        for section in &self.sections {
            let _ = writeln!(out, "\n## {}\n\n{}\n", section.name, section.what);
            out.push_str(&section.table().join("\n"));
            out.push('\n');
        }
        for plot in plots {
            let _ = writeln!(out, "\n![{plot}]({plot})");
        }
        out
    }
}

impl Section {
    /// The columns, what the ratio is of first.
    fn columns(&self) -> Vec<&str> {
        const ORDER: [&str; 4] = ["wall_s", "cpu_s", "memory_mib", "wire_mib"];
        let mut all = vec![self.headline];
        let keys = || self.rows.iter().flat_map(|row| row.median.keys().map(String::as_str));
        let has = |name: &str| keys().any(|key| key == name);
        all.extend(ORDER.into_iter().filter(|name| *name != self.headline && has(name)));
        let mut rest: Vec<&str> = keys().filter(|key| !key.starts_with("received_by")).collect();
        rest.sort_unstable();
        rest.dedup();
        rest.retain(|key| !all.contains(key));
        all.extend(rest);
        all
    }

    /// As lines of Markdown, aligned.
    fn table(&self) -> Vec<String> {
        let columns = self.columns();
        let ours = self.rows.iter().find(|row| row.program == OURS);
        let base = ours.and_then(|row| row.median.get(self.headline)).copied();
        let mut cells = vec![vec!["program".to_owned()]];
        cells[0].extend(columns.iter().map(|name| (*name).to_owned()));
        cells[0].insert(2, format!("/ {OURS}"));
        let mut notes = Vec::new();
        for row in &self.rows {
            if let Some(why) = row.failed.as_ref().or(row.skipped.as_ref()) {
                let word = if row.failed.is_some() { "FAILED" } else { "not done" };
                notes.push(format!("{}: {word}: {}", row.program, why.replace('\n', " ")));
            }
            if row.runs.is_empty() {
                continue;
            }
            let cell = |name: &&str| row.median.get(*name).map_or("—".into(), |value| figure(*value));
            let mut line = vec![row.program.to_owned()];
            line.extend(columns.iter().map(cell));
            let ratio = row.median.get(self.headline).zip(base).map(|(value, base)| value / base);
            line.insert(2, ratio.map_or("—".into(), figure));
            cells.push(line);
        }
        let mut lines = aligned(&cells);
        if !notes.is_empty() {
            lines.push(String::new());
            lines.extend(notes.into_iter().map(|note| format!("- {note}")));
        }
        lines
    }
}

fn aligned(cells: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let pad = |(cell, width): (&String, &usize)| format!(" {cell:width$} ");
        format!("|{}|", row.iter().zip(&widths).map(pad).collect::<Vec<_>>().join("|"))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let mut lines: Vec<String> = cells.iter().map(line).collect();
    lines.insert(1, format!("|{}|", rule.join("|")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(wall_s: f64) -> Values {
        [("wall_s".to_owned(), wall_s), ("cpu_s".to_owned(), 1.0)].into()
    }

    #[test]
    fn medians_and_ratios_are_of_the_same_run() {
        let mut report = Report::new(Path::new("."), Path::new("."), 1.0, 3);
        let work = crate::workload::all().remove(0);
        let done = |all: [f64; 3]| all.map(|v| Outcome::Done(values(v))).into();
        let table = report.add(
            &work,
            vec![
                ("dunlin", done([2.0, 9.0, 4.0])),
                ("rsync", done([1.0, 2.0, 3.0])),
                ("unison", vec![Outcome::Failed("no\nluck".into())]),
            ],
        );
        assert_eq!(
            table[0].split('|').map(str::trim).collect::<Vec<_>>()[1..5],
            ["program", "wall_s", "/ dunlin", "cpu_s"]
        );
        assert!(table[2].contains("4.00") && table[2].contains("1.00"), "{table:#?}");
        assert!(table[3].contains("2.00") && table[3].contains("0.500"), "{table:#?}");
        assert!(table.last().is_some_and(|line| line == "- unison: FAILED: no luck"), "{table:#?}");
        assert!(report.has_failures());
        assert_eq!(report.json()["workloads"][0]["programs"][1]["median"]["wall_s"], 2.0);
    }
}
