//! Helpers of the tests that talk HTTP.
