//! A path leads to a route by its bytes alone, ignoring case, and the upstream is sent the path as
//! configured with the query as it came.

#![no_main]

use std::sync::LazyLock;

use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;
use syncgate::route::{Destination, RouteSection, Routes};

const PATHS: [&str; 5] = [
    "/api/SyncData",
    "/api/GetData",
    "/api",
    "/",
    "/api/SyncData/x",
];

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let sections: Vec<RouteSection> = PATHS
        .iter()
        .map(|path| RouteSection::new(path.parse().expect("a path")))
        .collect();
    Routes::new(&sections)
});

fuzz_target!(|target: &str| {
    let Ok(uri) = target.parse::<Uri>() else {
        return;
    };
    let path = uri.path();
    let same = |known: &&&str| path.eq_ignore_ascii_case(known);
    match ROUTES.find(&Method::POST, path) {
        Ok(Destination::Own(own)) => assert!(path.eq_ignore_ascii_case(own.as_str())),
        Ok(Destination::Forward(route)) => {
            let configured = PATHS.iter().find(same).expect("a path of the list");
            assert_eq!(&**route.name(), *configured);
            let sent = route.target(&uri);
            assert_eq!(sent.path(), *configured);
            assert_eq!(sent.query(), uri.query());
            assert!(!sent.as_str().contains(['#', ' ', '\r', '\n', '\0']));
        }
        Err(_) => assert_eq!(PATHS.iter().find(same), None),
    }
    assert!(ROUTES.find(&Method::DELETE, path).is_err());
});
