//! Which crate may name which: the arrows of docs/architecture.md, and the one table of dependencies.

use super::{File, Objections, crate_of, ending};

/// A dependency and the only crates that may name it.
const ROOMS: &[(&str, &[&str])] = &[
    ("v8", &["aworker-rt"]),
    ("oci-spec", &["turf-core"]),
    ("caps", &["turf-core"]),
    ("cgroups-rs", &["turf-core"]),
    ("libseccomp", &["turf-core", "conformance"]),
    ("clap", &["turf-cli", "conformance"]),
    ("aworker-rt", &["turf-seed"]),
    ("turf-core", &["turf-cli", "turf-seed"]),
    ("turf-init", &["turf-core"]),
    ("turf-seed", &[]),
];

/// A dependency stands only in the manifests of its room.
pub fn rooms(tree: &[File]) -> Objections {
    let mut objections = Vec::new();
    for manifest in manifests(tree) {
        for name in dependencies(&manifest.text) {
            let allowed = ROOMS.iter().find(|(dependency, _)| *dependency == name);
            if allowed.is_some_and(|(_, crates)| !crates.contains(&crate_of(&manifest.path))) {
                objections.push(format!("{}: may not depend on {name}", manifest.path));
            }
        }
    }
    objections
}

/// Each dependency of the workspace has its reason beside it and a crate that uses it; no crate goes past the table.
pub fn reasons_and_users(tree: &[File]) -> Objections {
    let Some(root) = tree.iter().find(|file| file.path == "Cargo.toml") else {
        return vec!["Cargo.toml: is missing".to_owned()];
    };
    let mut objections = Vec::new();
    let manifests: Vec<&File> = manifests(tree).collect();
    for line in section(&root.text, |name| name == "workspace.dependencies") {
        let Some(name) = key(line) else { continue };
        if !line.contains("path =") && !line.contains(" # ") {
            objections.push(format!("Cargo.toml: {name}: the line gives no reason"));
        }
        if !manifests.iter().any(|manifest| dependencies(&manifest.text).contains(&name)) {
            objections.push(format!("Cargo.toml: {name}: no crate uses it"));
        }
    }
    for manifest in manifests {
        for line in section(&manifest.text, is_dependencies) {
            if key(line).is_some() && !line.contains("workspace = true") {
                objections
                    .push(format!("{}: {line}: belongs into the table of the workspace", manifest.path));
            }
        }
    }
    objections
}

/// The manifests of the workspace's crates. Fuzz targets are workspaces of their own.
fn manifests(tree: &[File]) -> impl Iterator<Item = &File> {
    ending(tree, &["/Cargo.toml"]).filter(|file| !file.path.ends_with("/fuzz/Cargo.toml"))
}

/// The names a manifest depends on, for the program, its tests and its build script.
fn dependencies(manifest: &str) -> Vec<&str> {
    section(manifest, is_dependencies).filter_map(key).collect()
}

fn is_dependencies(section: &str) -> bool {
    section.ends_with("dependencies") && !section.starts_with("workspace")
}

/// The lines of those sections whose name is wanted.
fn section<'a>(manifest: &'a str, wanted: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = &'a str> + 'a {
    let mut inside = false;
    manifest.lines().filter(move |line| {
        if let Some(name) = line.strip_prefix('[') {
            inside = wanted(name.trim_end_matches(']'));
            return false;
        }
        inside
    })
}

/// The name that a line `name = ...` or `name.workspace = true` defines.
fn key(line: &str) -> Option<&str> {
    let end = line.find(['.', ' ', '='])?;
    let name = &line[..end];
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    plain.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_dependency_outside_its_room_is_refused() {
        let tree =
            [file("turf-cli/Cargo.toml", "[dependencies]\nv8.workspace = true\nclap.workspace = true\n")];
        assert_eq!(rooms(&tree), ["turf-cli/Cargo.toml: may not depend on v8"]);
        let tree = [file("turf-core/Cargo.toml", "[dev-dependencies]\nclap.workspace = true\n")];
        assert_eq!(rooms(&tree).len(), 1);
        let tree = [file("conformance/Cargo.toml", "[dependencies]\nturf-core.workspace = true\n")];
        assert_eq!(rooms(&tree).len(), 1);
    }

    #[test]
    fn a_dependency_needs_a_reason_and_a_user() {
        let root = "[workspace.dependencies]\nlibc = \"1\" # system calls\nnix = \"1\"\n";
        let user = "[dependencies]\nlibc.workspace = true\n";
        let tree = [file("Cargo.toml", root), file("a/Cargo.toml", user)];
        let objections = reasons_and_users(&tree);
        assert_eq!(
            objections,
            ["Cargo.toml: nix: the line gives no reason", "Cargo.toml: nix: no crate uses it"]
        );
    }

    #[test]
    fn a_crate_takes_its_versions_from_the_table() {
        let tree = [file("Cargo.toml", ""), file("a/Cargo.toml", "[dependencies]\nlibc = \"1\"\n")];
        assert_eq!(reasons_and_users(&tree).len(), 1);
    }
}
