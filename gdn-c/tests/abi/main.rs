//! libgdn through its own functions, as a C program calls them: on a described device, which needs no GPU.

mod bytes;
mod contexts;
mod examples;
mod gpu;
mod header;
mod plans;
mod refusals;
mod replay;
mod support;
mod threads;
mod two_gpus;
