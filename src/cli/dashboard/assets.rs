//! Pure: the files of the page, which are part of the program.

/// The media type and the content of a file, by its path below the page's directory.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static str)> {
    let found = FILES.iter().find(|(name, ..)| *name == path)?;
    Some((found.1, found.2))
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const FILES: [(&str, &str, &str); 13] = [
    ("", HTML, include_str!("page/index.html")),
    ("style.css", CSS, include_str!("page/style.css")),
    ("icon.svg", SVG, include_str!("page/icon.svg")),
    ("app.js", JS, include_str!("page/app.js")),
    ("api.js", JS, include_str!("page/api.js")),
    ("dom.js", JS, include_str!("page/dom.js")),
    ("chart.js", JS, include_str!("page/chart.js")),
    ("actions.js", JS, include_str!("page/actions.js")),
    ("overview.js", JS, include_str!("page/overview.js")),
    ("users.js", JS, include_str!("page/users.js")),
    ("tokens.js", JS, include_str!("page/tokens.js")),
    ("routes.js", JS, include_str!("page/routes.js")),
    ("refusals.js", JS, include_str!("page/refusals.js")),
];
