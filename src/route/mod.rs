//! Pure: from method and path to what is meant.

mod settings;

pub use settings::{AuthorizationHeader, RoutePath, RoutePathError, RouteSection};
