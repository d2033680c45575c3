//! What people and programs exchange with Stele: the spec they write ([`spec`]), requests and
//! answers ([`wire`]), errors ([`problem`]), and the table of [`routes`] from which the server
//! and its `OpenAPI` document ([`openapi`]) are made.
//!
//! It is shared by server and client, so it must never do anything: no sockets, no files, no clock.
//!
//! ```
//! let file = stele_api::spec::parse_yaml(
//!     "app: shop/web\nenvironments: [prod]\nservices:\n  web:\n    imge: httpd\n",
//!     "web.yaml",
//! );
//! assert_eq!(
//!     file.unwrap_err().to_string(),
//!     "web.yaml:5:5: services.web: unknown field `imge`; did you mean `image`?"
//! );
//! ```

pub mod limits;
pub mod openapi;
pub mod problem;
pub mod routes;
pub mod spec;
pub mod wire;

pub use problem::{Problem, ProblemKind};
pub use spec::AppSpec;
