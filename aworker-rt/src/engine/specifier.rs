//! Module specifiers: from what an `import` says to the file it means. Pure.
//!
//! <https://html.spec.whatwg.org/#resolve-a-module-specifier>, for `file:` URLs: relative (`./a.js`, `../a.js`),
//! absolute (`/a.js`) and `file:` specifiers, and what an import map makes of any other. There is no package lookup.
//! A `?query` or `#fragment` makes another module of the same file, as on the Web.

use url::Url;

use super::import_map::ImportMap;

/// What makes a module unique: its URL. Stack traces show it as a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ModuleName {
    url: String,
    shown: String,
}

impl ModuleName {
    /// The name of a program: an absolute path; anything else is a name in the working directory.
    pub(super) fn from_path(path: &str) -> ModuleName {
        let absolute = match path.starts_with('/') {
            true => path.into(),
            false => std::env::current_dir().unwrap_or_else(|_| "/".into()).join(path),
        };
        // Only a relative path has no URL.
        let url = Url::from_file_path(absolute).map_or_else(|()| String::new(), String::from);
        ModuleName { url, shown: path.to_owned() }
    }

    /// The name of a URL that a program asks for.
    ///
    /// # Errors
    /// It means no local file; the end of a sentence.
    pub(super) fn from_url(url: &Url) -> Result<ModuleName, String> {
        if url.scheme() != "file" {
            return Err(format!("modules are read from files only, not from {}:", url.scheme()));
        }
        let path = url.to_file_path().map_err(|()| "a file: URL must name no host".to_owned())?;
        let rest = &url.as_str()[url.as_str().find(['?', '#']).unwrap_or(url.as_str().len())..];
        Ok(ModuleName { shown: format!("{}{rest}", path.to_string_lossy()), url: url.as_str().to_owned() })
    }

    /// A name out of a snapshot.
    pub(super) fn from_parts(url: &str, shown: &str) -> ModuleName {
        ModuleName { url: url.to_owned(), shown: shown.to_owned() }
    }

    /// The name as stack traces show it.
    pub(super) fn as_str(&self) -> &str {
        &self.shown
    }

    /// The file to read: no query, no fragment, percent-decoded.
    pub(super) fn path(&self) -> String {
        let path = Url::parse(&self.url).ok().and_then(|url| url.to_file_path().ok());
        path.map_or_else(|| self.shown.clone(), |path| path.to_string_lossy().into_owned())
    }

    /// The `file:` URL, `import.meta.url`.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

/// Resolves a specifier against the module (or script) that holds it.
///
/// # Errors
/// What is wrong with the specifier, as the end of a sentence.
pub(super) fn resolve(
    specifier: &str,
    referrer: &ModuleName,
    map: Option<&ImportMap>,
) -> Result<ModuleName, String> {
    ModuleName::from_url(&resolve_url(specifier, referrer, map)?)
}

/// As [`resolve`], to a URL that need not be one of a file: `import.meta.resolve`.
pub(super) fn resolve_url(
    specifier: &str,
    referrer: &ModuleName,
    map: Option<&ImportMap>,
) -> Result<Url, String> {
    let base = Url::parse(&referrer.url).map_err(|_| "its importer has no URL".to_owned())?;
    let as_url = url_like(specifier, &base);
    if let Some(map) = map {
        let normalised = as_url.as_ref().map_or(specifier, Url::as_str);
        if let Some(mapped) = map.resolve(normalised, as_url.as_ref(), base.as_str())? {
            return Ok(mapped);
        }
    }
    as_url.ok_or_else(|| bare(map.is_some()))
}

/// <https://html.spec.whatwg.org/#resolving-a-url-like-module-specifier>
pub(super) fn url_like(specifier: &str, base: &Url) -> Option<Url> {
    let is_relative = ["/", "./", "../"].iter().any(|start| specifier.starts_with(start));
    match is_relative {
        true => base.join(specifier).ok(),
        false => Url::parse(specifier).ok(),
    }
}

fn bare(has_map: bool) -> String {
    let remedy = match has_map {
        true => "the import map has no entry for it",
        false => "bundle the program, or give an import map (--import-map)",
    };
    format!("it must begin with ./, ../, / or file:///; for a package, {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(specifier: &str, referrer: &str) -> Result<ModuleName, String> {
        resolve(specifier, &ModuleName::from_path(referrer), None)
    }

    #[test]
    fn specifiers_resolve_against_their_importer() {
        let table = [
            ("./b.js", "/app/a.js", "/app/b.js"),
            ("../b.js", "/app/lib/a.js", "/app/b.js"),
            ("../../../b.js", "/app/a.js", "/b.js"),
            ("./x/./y/../b.js", "/app/a.js", "/app/x/b.js"),
            ("/lib/b.js", "/app/a.js", "/lib/b.js"),
            ("file:///lib/b.js", "/app/a.js", "/lib/b.js"),
            ("file:/lib/b.js", "/app/a.js", "/lib/b.js"),
            ("./b.js?v=../2", "/app/a.js", "/app/b.js?v=../2"),
            ("./b.js", "/a.js", "/b.js"),
            ("./b.js", "/a?b/100%41.js", "/a?b/b.js"),
        ];
        for (specifier, referrer, expected) in table {
            let name = resolved(specifier, referrer).expect(specifier);
            assert_eq!(name.as_str(), expected, "{specifier} in {referrer}");
        }
    }

    #[test]
    fn a_query_of_the_importer_is_not_passed_on() {
        let importer = resolved("./a.js?v=/1", "/app/x").expect("relative");
        let name = resolve("./b.js", &importer, None).expect("relative");
        assert_eq!(name.as_str(), "/app/b.js");
    }

    #[test]
    fn bare_and_remote_specifiers_are_refused() {
        for (specifier, reason) in [
            ("react", "it must begin with ./"),
            ("", "it must begin with ./"),
            (".", "it must begin with ./"),
            ("b.js", "it must begin with ./"),
            ("node:fs", "not from node:"),
            ("https://example.org/a.js", "not from https:"),
            ("file://host/a.js", "must name no host"),
        ] {
            let error = resolved(specifier, "/app/a.js").expect_err(specifier);
            assert!(error.contains(reason), "{specifier}: {error}");
        }
    }

    #[test]
    fn names_become_paths_and_urls() {
        let name = resolved("./a%20b%zz.js?q#f", "/app/x").expect("relative");
        assert_eq!((name.path().as_str(), name.as_str()), ("/app/a b%zz.js", "/app/a b%zz.js?q#f"));
        assert_eq!(name.url(), "file:///app/a%20b%zz.js?q#f");
        assert_eq!(ModuleName::from_path("/app/ä b.js").url(), "file:///app/%C3%A4%20b.js");
        let odd = ModuleName::from_path("/app/100%41?.js");
        assert_eq!((odd.path().as_str(), odd.url()), ("/app/100%41?.js", "file:///app/100%2541%3F.js"));
        assert_eq!(resolved("./%41.js", "/app/x").expect("relative").as_str(), "/app/A.js");
    }

    #[test]
    fn a_program_without_a_file_lives_in_the_working_directory() {
        let name = ModuleName::from_path("[eval]");
        assert_eq!(name.as_str(), "[eval]");
        let directory = std::env::current_dir().expect("a directory");
        assert_eq!(
            resolve("./a.js", &name, None).expect("relative").path(),
            directory.join("a.js").to_string_lossy()
        );
    }
}
