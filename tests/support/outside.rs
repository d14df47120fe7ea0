//! Clients that we did not write: the scripts of `tests/outside`, run by their interpreters.

use super::process;
use super::server::Server;
use super::wait;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// An interpreter, its script, and what it needs to be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outside {
    program: &'static str,
    script: &'static str,
    /// Arguments with which the program fails if the library is not there.
    probe: [&'static str; 2],
    install: &'static str,
}

/// Python with `websockets`.
pub(crate) const PYTHON: Outside = Outside {
    program: "python3",
    script: "chat.py",
    probe: ["-c", "import websockets.asyncio.client"],
    install: "pip install -r tests/outside/requirements.txt",
};

/// Our own client in Node, with `ws`.
pub(crate) const OURS: Outside = Outside { script: "client.mjs", ..NODE };

/// Python with `websockets` and `jsonrpcclient`, playing a table.
pub(crate) const PYTHON_TABLE: Outside = Outside {
    script: "protocol.py",
    probe: ["-c", "import websockets.asyncio.client, jsonrpcclient"],
    ..PYTHON
};

/// Node with `ws`, playing the same.
pub(crate) const NODE_TABLE: Outside = Outside { script: "protocol.mjs", ..NODE };

/// Python alone: its own client of HTTP.
pub(crate) const PYTHON_HTTP: Outside = Outside {
    program: "python3",
    script: "requests.py",
    probe: ["-c", "import http.client"],
    install: "apt-get install python3",
};

/// Node with `ws`.
pub(crate) const NODE: Outside = Outside {
    program: "node",
    script: "chat.mjs",
    probe: ["-e", "require.resolve('ws')"],
    install: "npm install --prefix tests/outside",
};

/// Debian's Chromium, driven from Node.
pub(crate) const BROWSER: Outside = Outside {
    script: "browser.mjs",
    probe: [
        "-e",
        "require.resolve('playwright-core'); require('fs').accessSync(process.env.CHROMIUM ?? '/usr/bin/chromium')",
    ],
    install: "apt-get install chromium; npm install --prefix tests/outside",
    ..NODE
};

/// The same with the script of the dashboard.
pub(crate) const DASHBOARD: Outside = Outside { script: "dashboard.mjs", ..BROWSER };

impl Outside {
    /// Runs a scenario against a server; it must end well.
    pub(crate) fn plays(self, scenario: &str, server: &Server) {
        self.play(scenario, server)();
    }

    /// The same for a test that does something meanwhile: what is given plays it.
    pub(crate) fn play(self, scenario: &str, server: &Server) -> impl FnOnce() + Send + use<> {
        self.must_be_there();
        let scenario = scenario.to_owned();
        let mut command = Command::new(self.program);
        command
            .arg(place().join(self.script))
            .arg(&scenario)
            .arg(format!("ws://{}/ws", server.address))
            .arg(server.run_dir())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        move || {
            let ended = process::run(&mut command);
            assert_eq!(ended.code, Some(0), "{} {scenario}:\n{}", self.script, ended.stderr);
        }
    }

    /// The same while the server is stopped and started again. The scenario makes the file `before` when it
    /// may stop, and `away` when it may come back.
    pub(crate) fn plays_over_a_restart(
        self,
        scenario: &str,
        mut server: Server,
        before: &str,
        away: &str,
    ) {
        let play = thread::spawn(self.play(scenario, &server));
        let mark = |name: &str| server.dir().path().join(name);
        let (before, away) = (mark(before), mark(away));
        wait::until("the scenario lets the server stop", || before.exists());
        server.signal("TERM");
        server.wait_end();
        wait::until("the scenario has seen that it is away", || away.exists());
        let _server = server.start_again_for_its_clients();
        play.join().expect("the scenario went through it");
    }

    /// Fails with the command that installs what is missing: a test that skips itself proves nothing.
    pub(crate) fn must_be_there(self) {
        let probe = Command::new(self.program).args(self.probe).current_dir(place()).output();
        let there = probe.is_ok_and(|output| output.status.success());
        assert!(
            there,
            "what {} needs for {} is missing. Install it with `{}`, or run .ci/run, which does.",
            self.program, self.script, self.install
        );
    }
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outside")
}
