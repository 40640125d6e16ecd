//! propagation.
