//! Every argument that a call refuses, with its message. Addresses are made up: nothing is launched.

mod calls;
mod decode;
mod kda;
mod lies;
mod plans;
mod recurrent;
mod replay;
mod states;
