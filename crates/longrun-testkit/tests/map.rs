//! ARCHITECTURE.md names the tests of each line of the contract, INVARIANTS.md those of each invariant, and the faults that are planted
//! against it. This keeps the names true.
//!
//! `LONGRUN_WRITE_MAP=1 cargo test -p longrun-testkit --test map` writes them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// By line of the contract or invariant, by file: the tests.
type Map = BTreeMap<String, BTreeMap<String, Vec<String>>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines that a test names: `c07_s22_what_it_shows` has two.
fn lines_of(test: &str) -> impl Iterator<Item = String> {
    let is_line = |part: &&str| {
        let number = part.strip_prefix(['c', 's', 'l']).unwrap_or_default();
        !number.is_empty() && number.len() <= 2 && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let name = |part: &str| format!("{}{}", part[..1].to_uppercase(), part[1..].trim_start_matches('0'));
    test.split('_').take_while(is_line).map(name)
}

fn tests() -> Map {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    let mut map = Map::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let place = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        for line in text.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("async ").unwrap_or(line);
            let Some(test) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) else {
                continue;
            };
            for line in lines_of(test) {
                map.entry(line).or_default().entry(place.clone()).or_default().push(test.to_owned());
            }
        }
    }
    map
}

/// The third column: each file with its tests.
fn column(files: &BTreeMap<String, Vec<String>>) -> String {
    let of_file = |(place, tests): (&String, &Vec<String>)| {
        let part = place.split('/').nth(1).unwrap();
        let part = if part == "longrun" { "engine" } else { part.trim_start_matches("longrun-") };
        let stem = Path::new(place).file_stem().unwrap().to_str().unwrap();
        let tests = tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>();
        format!("[{part}/{stem}]({place}): {}", tests.join(", "))
    };
    files.iter().map(of_file).collect::<Vec<_>>().join("; ")
}

/// Has these lines written, if that is asked for, and demands that they are there.
fn written(path: &Path, lines: &[String]) -> String {
    let expected = lines.join("\n") + "\n";
    if std::env::var_os("LONGRUN_WRITE_MAP").is_some() {
        fs::write(path, &expected).unwrap();
    }
    let found = fs::read_to_string(path).unwrap();
    assert!(found == expected, "the names are not those of the tests; see the head of this file");
    found
}

/// By invariant: what the planted faults against it are called.
fn planted() -> BTreeMap<String, Vec<String>> {
    let mut planted = BTreeMap::<_, Vec<_>>::new();
    let patches = fs::read_dir(root().join("crates/longrun-testkit/mutants")).unwrap();
    let mut patches: Vec<_> = patches.map(|patch| patch.unwrap().path()).collect();
    patches.sort();
    for patch in patches.iter().filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
    {
        let text = fs::read_to_string(patch).unwrap();
        let invariant = text.lines().find_map(|line| line.strip_prefix("Invariant: ")).unwrap().to_owned();
        let name = patch.file_stem().unwrap().to_str().unwrap();
        let fault = name.split_once('-').unwrap().1.replace('-', " ");
        planted.entry(invariant).or_default().push(fault);
    }
    planted
}

#[test]
fn each_invariant_names_its_tests_and_what_is_planted_against_it() {
    let path = root().join("INVARIANTS.md");
    let text = fs::read_to_string(&path).unwrap();
    let (mut map, mut planted) = (tests(), planted());
    map.retain(|line, _| !line.starts_with('C'));
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut columns = line.splitn(5, '|').map(str::trim);
        let (name, rule) = (columns.nth(1).unwrap_or_default(), columns.next().unwrap_or_default());
        let number = name.strip_prefix(['S', 'L']).is_some_and(|number| number.parse::<u8>().is_ok());
        if !number {
            lines.push(line.to_owned());
            continue;
        }
        let files = map.remove(name).unwrap_or_default();
        let faults = planted.remove(name).unwrap_or_default();
        assert!(!files.is_empty(), "no test names {name}");
        assert!(!faults.is_empty(), "nothing is planted against {name}");
        lines.push(format!("| {name} | {rule} | {} | {} |", faults.join("; "), column(&files)));
    }
    assert!(map.is_empty() && planted.is_empty(), "no such invariant: {:?} {planted:?}", map.keys());
    let found = written(&path, &lines);
    let mut all =
        (1..=44).map(|number| format!("S{number}")).chain((1..=9).map(|number| format!("L{number}")));
    assert_eq!(all.find(|name| !found.contains(&format!("\n| {name} | "))), None, "an invariant is missing");
}

#[test]
fn the_contract_names_its_tests() {
    let path = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut map = tests();
    map.retain(|line, _| line.starts_with('C'));
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut columns = line.splitn(5, '|').map(str::trim);
        let (name, promise) = (columns.nth(1).unwrap_or_default(), columns.next().unwrap_or_default());
        match map.remove(name) {
            Some(files) => lines.push(format!("| {name} | {promise} | {} |", column(&files))),
            None => lines.push(line.to_owned()),
        }
    }
    assert!(map.is_empty(), "no such line of the contract: {:?}", map.keys());
    let found = written(&path, &lines);
    let all = (1..=22).all(|number| found.contains(&format!("\n| C{number} | ")));
    assert!(all, "a line of the contract is missing");
}
