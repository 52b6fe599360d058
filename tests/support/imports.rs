//! Which file of a Rust source folder names what of which other, read from its paths.
//!
//! Not a compiler: it knows `use` trees, paths that begin with `crate`, `super`, `self` or the name of a
//! child module, re-exports (`pub use`), through which it looks at the file that defines the item, and
//! modules whose files `#[path = ..]` names.
//! Macros and glob imports of items are not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module, as the names that lead to it from the root.
type Module = Vec<String>;

/// The modules of one folder.
pub(crate) struct Sources {
    /// The file of each module.
    files: BTreeMap<Module, String>,
    /// What each module's file is made of.
    code: BTreeMap<Module, Code>,
    /// The files that a module is one of, if it is not the one of its name alone (`#[path = ..]`), each as
    /// the module that it would be by its own name.
    variants: BTreeMap<Module, Vec<Module>>,
}

struct Code {
    /// All paths it names, one for each leaf of a `use` tree.
    named: Vec<Vec<String>>,
    /// Of these, what it hands on (`pub use`): under which name, and the paths, of which there may be
    /// one for each platform.
    handed_on: BTreeMap<String, Vec<Vec<String>>>,
}

impl Sources {
    /// Reads every `.rs` file below `root`, whose own module file is `lib.rs`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut texts = BTreeMap::new();
        collect(root, &mut Vec::new(), &mut texts);
        let files =
            texts.iter().map(|(module, (file, _))| (module.clone(), file.clone())).collect();
        let code = texts.iter().map(|(module, (_, text))| (module.clone(), parse(text))).collect();
        let mut sources = Self { files, code, variants: BTreeMap::new() };
        for (module, (_, text)) in &texts {
            for (name, stems) in variants(text) {
                let named = [&module[..], &[name]].concat();
                let others = stems.into_iter().map(|stem| [&module[..], &[stem]].concat());
                let own = sources.files.contains_key(&named).then(|| named.clone());
                sources.variants.insert(named, others.chain(own).collect());
            }
        }
        sources
    }

    /// For each file, the files that define what it names.
    pub(crate) fn arrows(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut arrows = BTreeMap::new();
        for (module, code) in &self.code {
            let own = &self.files[module];
            let targets: &mut BTreeSet<String> = arrows.entry(own.clone()).or_default();
            for path in &code.named {
                // What a module hands on from its own children it does not itself stand on.
                let handed_on = code.handed_on.values().flatten().any(|other| other == path);
                if handed_on && self.child(module, &path[0]) {
                    continue;
                }
                let files = self.definers(module, path, 0).into_iter();
                targets.extend(files.map(|m| self.files[&m].clone()).filter(|file| file != own));
            }
        }
        arrows
    }

    fn child(&self, module: &[String], name: &str) -> bool {
        let child = [module, &[name.to_owned()]].concat();
        self.files.contains_key(&child) || self.variants.contains_key(&child)
    }

    /// The modules whose files define what `path` names when written in `module`. None if it is not
    /// of this folder.
    fn definers(&self, module: &Module, path: &[String], depth: usize) -> Vec<Module> {
        assert!(depth < 32, "re-exports in a circle: {module:?} {path:?}");
        let mut at = module.clone();
        let mut rest = path;
        match rest.first().map_or("", String::as_str) {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            name if self.child(&at, name) => {}
            _ => return Vec::new(),
        }
        while let Some(name) = rest.first() {
            if self.child(&at, name) {
                at.push(name.clone());
                rest = &rest[1..];
                if let Some(variants) = self.variants.get(&at) {
                    let rest = [&["self".to_owned()], rest].concat();
                    let each = |variant| self.definers(variant, &rest, depth + 1);
                    return variants.iter().flat_map(each).collect();
                }
            } else if let Some(paths) = self.code[&at].handed_on.get(name) {
                let whole = paths.iter().map(|path| [path, &rest[1..]].concat());
                return whole.flat_map(|path| self.definers(&at, &path, depth + 1)).collect();
            } else {
                break;
            }
        }
        vec![at]
    }
}

/// The first circle found, as the files along it, if there is one.
pub(crate) fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        file: &'a String,
        arrows: &'a BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<&'a String>,
        done: &mut BTreeSet<&'a String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|&other| other == file) {
            return Some(way[start..].iter().map(|&file| file.clone()).collect());
        }
        if !done.insert(file) {
            return None;
        }
        way.push(file);
        let found =
            arrows.get(file).into_iter().flatten().find_map(|t| visit(t, arrows, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    arrows.keys().find_map(|file| visit(file, arrows, &mut Vec::new(), &mut done))
}

fn collect(folder: &Path, module: &mut Module, out: &mut BTreeMap<Module, (String, String)>) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            module.push(stem);
            collect(&path, module, out);
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut own = module.clone();
            if stem != "lib" && stem != "mod" {
                own.push(stem.clone());
            }
            let file = [&module[..], &[format!("{stem}.rs")]].concat().join("/");
            out.insert(own, (file, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The modules for which `#[path = ..]` names a file, and those files' stems: one for each version, mostly.
fn variants(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut stems = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            let path = line.split("path = \"").nth(1).and_then(|rest| rest.split(".rs\"").next());
            stems.extend(path.map(str::to_owned));
        } else {
            let name = line.strip_suffix(';').and_then(|line| line.split("mod ").nth(1));
            let stems = std::mem::take(&mut stems);
            found.extend(name.filter(|_| !stems.is_empty()).map(|name| (name.to_owned(), stems)));
        }
    }
    found
}

/// The words and signs of the code: no comments, no strings, nothing from `#[cfg(test)] mod` on.
fn tokens(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut tokens = Vec::new();
    let mut in_string = false;
    for line in lines {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if in_string => drop(chars.next()),
                '"' => in_string = !in_string,
                _ if in_string || c.is_whitespace() => {}
                ':' if chars.peek() == Some(&':') => {
                    chars.next();
                    tokens.push("::".to_owned());
                }
                c if c.is_alphanumeric() || c == '_' => {
                    let mut word = String::from(c);
                    while let Some(&c) = chars.peek().filter(|c| c.is_alphanumeric() || **c == '_')
                    {
                        word.push(c);
                        chars.next();
                    }
                    tokens.push(word);
                }
                c => tokens.push(c.to_string()),
            }
        }
    }
    tokens
}

fn parse(text: &str) -> Code {
    let tokens = tokens(text);
    let mut code = Code { named: Vec::new(), handed_on: BTreeMap::new() };
    let mut index = 0;
    while index < tokens.len() {
        let token = tokens[index].as_str();
        let previous = index.checked_sub(1).map_or("", |index| tokens[index].as_str());
        if token == "use" {
            let public = previous == "pub" || (previous == ")" && is_pub_in(&tokens, index - 1));
            let mut leaves = Vec::new();
            index = tree(&tokens, index + 1, &[], &mut leaves);
            for (name, path) in leaves {
                if public {
                    code.handed_on.entry(name).or_default().push(path.clone());
                }
                code.named.push(path);
            }
        } else if is_word(token)
            && previous != "::"
            && tokens.get(index + 1).is_some_and(|t| t == "::")
        {
            let mut path = vec![token.to_owned()];
            while tokens.get(index + 1).is_some_and(|token| token == "::")
                && tokens.get(index + 2).is_some_and(|token| is_word(token))
            {
                path.push(tokens[index + 2].clone());
                index += 2;
            }
            code.named.push(path);
        }
        index += 1;
    }
    code
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Whether the bracket that closes at `close` is that of `pub(..)`.
fn is_pub_in(tokens: &[String], close: usize) -> bool {
    let open = tokens[..close].iter().rposition(|token| token == "(").unwrap_or(0);
    open > 0 && tokens[open - 1] == "pub"
}

/// Reads a `use` tree from `index` on; returns the index of the token after it.
fn tree(
    tokens: &[String],
    mut index: usize,
    prefix: &[String],
    leaves: &mut Vec<(String, Vec<String>)>,
) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens[index].as_str() {
            "::" => index += 1,
            "{" => {
                index += 1;
                while tokens[index] != "}" {
                    index = tree(tokens, index, &path, leaves);
                    if tokens[index] == "," {
                        index += 1;
                    }
                }
                return index + 1;
            }
            "as" => {
                leaves.push((tokens[index + 1].clone(), path));
                return index + 2;
            }
            "self" if !path.is_empty() => {
                index += 1;
            }
            "*" => {
                index += 1;
            }
            word if is_word(word) => {
                path.push(word.to_owned());
                index += 1;
            }
            _ => {
                leaves.push((path.last().cloned().unwrap_or_default(), path));
                return index;
            }
        }
    }
}
