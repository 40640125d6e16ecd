//! authdns from the outside: answers, the form of messages, both encoders, a model, and sockets.
#![allow(clippy::expect_used, reason = "helpers of tests fail loudly too")]

mod answers;
mod common;
mod equal;
mod form;
mod model;
mod server;
