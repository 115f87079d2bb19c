//! What the program is installed with: the Debian package, the container's root directory, the examples for
//! containers and Kubernetes. `make tools` installs what these tests need.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;
use syncgate::config::load_without_file_checks;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A tool that `make tools` installs beside the target directory's profile.
fn tool(path: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_syncgate"));
    let target = program.parent().and_then(Path::parent);
    target.expect("target/debug/syncgate").join(path)
}

fn succeeds(command: &mut Command) {
    let output = command
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| {
            panic!("{command:?}: {error}; make tools installs what is missing")
        });
    let (told, failed) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{told}{failed}");
    assert!(output.status.success(), "{command:?}: {}", output.status);
}

/// In a copy of this system: a token lives on while the package is upgraded, and a purge leaves nothing.
#[test]
fn the_package_is_installed_upgraded_removed_and_purged_and_the_container_runs() {
    let tools = tool("tools/bin");
    let paths = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect::<Vec<_>>();
    let paths = env::join_paths([tools].into_iter().chain(paths)).expect("paths without colons");
    let mut path = std::ffi::OsString::from("PATH=");
    path.push(paths);
    // It mounts, changes its root and installs.
    let mut command = match geteuid().is_root() {
        true => Command::new("env"),
        false => Command::new("sudo"),
    };
    if !geteuid().is_root() {
        command.args(["-n", "env"]);
    }
    command.arg(path).args([
        "scripts/debian-package-test.sh",
        env!("CARGO_BIN_EXE_syncgate"),
    ]);
    succeeds(&mut command);
}

#[test]
fn the_examples_for_containers_are_what_compose_and_kubernetes_accept() {
    succeeds(
        Command::new(tool("schemas-venv/bin/check-jsonschema")).args([
            "--builtin-schema",
            "vendor.compose-spec",
            "examples/container/compose.yaml",
        ]),
    );
    succeeds(
        Command::new(tool("schemas-venv/bin/kubernetes-validate"))
            .args(["--strict", "examples/kubernetes/syncgate.yaml"]),
    );
    for example in ["container", "kubernetes"] {
        let path = root().join("examples").join(example).join("config.toml");
        // The files that it names are for whoever uses it to write.
        load_without_file_checks(&path).unwrap_or_else(|problems| panic!("{problems}"));
    }
}
