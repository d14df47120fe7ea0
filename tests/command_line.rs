//! What the command line says of itself and to programs: help, man pages, completions, `--json`.

use crate::support::Server;
use crate::support::dir::Dir;
use crate::support::process::{self, Ended};
use crate::support::server::{DUNLIN, dunlin};
use serde_json::Value as Json;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// The one object on standard output.
fn object(ended: &Ended) -> Json {
    assert_eq!(ended.stdout.lines().count(), 1, "one line: {ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn verbs() -> Vec<String> {
    let help = process::run(dunlin().arg("--help")).stdout;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.split_whitespace().next()?;
        (name != "help").then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn bash_completes_verbs_and_flags() {
    let complete = |words: &str| {
        let script = format!(
            "source <(\"$0\" completions bash) && COMP_WORDS=({words}) && \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) && \
             _dunlin dunlin \"${{COMP_WORDS[-1]}}\" && printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let ended = process::run(Command::new("bash").args(["-c", &script, DUNLIN]));
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        ended.stdout
    };
    assert_eq!(complete("dunlin rel"), "reload\n");
    assert_eq!(complete("dunlin reload --ta"), "--tasks\n");
    assert_eq!(complete("dunlin bench surv"), "survive\n");
}

#[test]
fn every_shell_has_a_script_and_another_is_named() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = process::run(dunlin().args(["completions", shell]));
        assert!(ended.code == Some(0) && ended.stdout.contains("reload"), "{shell}: {ended:?}");
    }
    let ended = process::run(dunlin().args(["completions", "tcsh"]));
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("zsh"), "{ended:?}");
}

#[test]
fn every_verb_has_a_manual_page_that_groff_reads_without_a_warning() {
    // Where groff is missing the pages are still made, and looked at for what they must have.
    let groff = ["/usr/bin/groff", "/usr/local/bin/groff"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let dir = Dir::new();
    let mut pages = vec![Vec::new()];
    pages.extend(verbs().into_iter().map(|verb| vec![verb]));
    pages.push(vec!["bench".to_owned(), "survive".to_owned()]);
    assert!(pages.len() > 12, "{pages:?}");
    for words in pages {
        let ended = process::run(dunlin().arg("man").args(&words));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for section in ["NAME", "SYNOPSIS", "EXAMPLES", "\"EXIT STATUS\""] {
            assert!(ended.stdout.contains(&format!("\n.SH {section}\n")), "{words:?}: {section}");
        }
        let Some(groff) = groff else { continue };
        let page = dir.path().join("page.1");
        fs::write(&page, &ended.stdout).expect("a file");
        let read = process::run(Command::new(groff).args(["-man", "-ww", "-Tutf8"]).arg(&page));
        assert_eq!((read.code, read.stderr.as_str()), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn verbs_give_programs_one_object_whatever_came_of_it() {
    let mut server = Server::start("[server]\nworkers = 2\ntask_workers = 1");
    let reloaded = object(&server.verb(&["reload", "--json"]));
    assert_eq!((&reloaded["ok"], &reloaded["result"]["seq"]), (&true.into(), &1.into()));
    let balanced = object(&server.verb(&["balance", "--json"]));
    assert_eq!(balanced["result"]["connections"].as_array().map(Vec::len), Some(2), "{balanced}");
    assert_eq!(object(&server.verb(&["drain", "1", "--json"]))["result"]["moved"], 0);

    let refused = server.verb(&["drain", "7", "--json"]);
    assert_eq!((refused.code, &object(&refused)["ok"]), (Some(1), &false.into()));
    let sentence = object(&refused)["error"].as_str().expect("a sentence").to_owned();
    assert_eq!(refused.stderr, format!("dunlin: drain refused: {sentence}\n"));

    let upgrade = server.verb(&["upgrade", "--json", "/no/such/file"]);
    assert_eq!((upgrade.code, &object(&upgrade)["ok"]), (Some(1), &false.into()), "{upgrade:?}");

    let pid = server.pid;
    let stopped = object(&server.verb(&["stop", "--json"]));
    assert_eq!((&stopped["ok"], &stopped["result"]["pid"]), (&true.into(), &pid.into()));
    assert_eq!(server.wait_end().code(), Some(0));
    for words in [&["reload", "--json"][..], &["stop", "--json"], &["upgrade", "--json"]] {
        let gone = server.verb(words);
        assert_eq!((gone.code, &object(&gone)["ok"]), (Some(3), &false.into()), "{gone:?}");
        assert!(gone.stderr.contains("no server is running"), "{gone:?}");
    }
}

#[test]
fn check_gives_programs_values_with_their_origin_and_no_secret() {
    let dir = Dir::new();
    dir.write_config("[server]\nworkers = 3");
    let check = |words: &[&str]| {
        let mut command = dunlin();
        command.args(["check", "--json", "-c"]).arg(dir.config_file()).args(words);
        command.env("DUNLIN_REDIS__PASSWORD", "geheim");
        process::run(&mut command)
    };
    let ended = check(&["--set", "server.stop_timeout=7s", "-l", "127.0.0.1:1"]);
    let settings = &object(&ended)["result"]["settings"];
    assert_eq!(settings["server.workers"]["value"], 3);
    assert!(settings["server.workers"]["origin"].as_str().is_some_and(|at| at.contains(":2")));
    assert_eq!(settings["server.stop_timeout"]["value"], "7s");
    assert_eq!(settings["server.listen"]["value"], serde_json::json!(["127.0.0.1:1"]));
    assert_eq!(settings["redis.password"]["value"], "***");
    assert!(!ended.stdout.contains("geheim"), "{ended:?}");

    let wrong = check(&["--set", "server.wrkers=1"]);
    assert_eq!((wrong.code, &object(&wrong)["ok"]), (Some(2), &false.into()));
    assert!(object(&wrong)["error"].as_str().is_some_and(|said| said.contains("server.workers")));
}

#[test]
fn the_status_has_rates_and_no_colours_in_a_file_and_watching_goes_on() {
    let server = Server::start("[server]\nworkers = 2");
    let mut ann = server.client().login("ann");
    let (stop, stopped) = mpsc::channel::<()>();
    let talk = thread::spawn(move || {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            ann.result("ping", serde_json::json!({}));
        }
    });
    let mut command = server.verb_command(&["status", "--watch", "--every", "100ms"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
    let mut tables = 0;
    let mut rates = Vec::new();
    for line in lines.map_while(Result::ok) {
        assert!(!line.contains('\u{1b}'), "{line:?}");
        tables += usize::from(line.starts_with("WORKER"));
        rates.extend(line.strip_prefix("rates ").map(str::to_owned));
        if tables == 3 {
            break;
        }
    }
    child.kill().and_then(|()| child.wait()).expect("our own child");
    drop(stop);
    talk.join().expect("nobody was disturbed");
    assert_eq!(rates.len(), 3, "{rates:?}");
    assert!(rates.iter().all(|line| line.contains("per second: ")), "{rates:?}");
    assert!(rates.iter().any(|line| !line.contains("per second: 0 messages in")), "{rates:?}");
    assert_eq!(server.verb(&["status", "--every", "2s"]).code, Some(2), "of --watch only");
}

#[test]
fn who_prints_ends_when_nobody_reads_any_more() {
    let server = Server::start("[server]\nworkers = 1");
    for words in [
        &["status", "--watch", "--every", "20ms"][..],
        &["status", "--json", "--watch", "--every", "20ms"],
        &["status"],
        &["check"],
        &["completions", "bash"],
        &["man"],
        &["bench", "connect", "--duration", "100ms", "--connections", "10"],
    ] {
        let speaks_to_server = !matches!(words[0], "completions" | "man");
        let mut command = dunlin();
        command.args(words);
        if speaks_to_server {
            command.arg("--run-dir").arg(server.run_dir());
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let ended = process::wait_child(&words.join(" "), &mut child);
        assert_eq!(ended.code(), Some(0), "{words:?}");
    }
}
