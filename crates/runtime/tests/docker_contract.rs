//! The contract, kept by the real Docker.

mod support;

contract!(support::real::RealDocker::new());
