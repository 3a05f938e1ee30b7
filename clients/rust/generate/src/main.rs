//! `headrace-generate DESCRIPTOR_SET FOLDER` writes one file for each package of the descriptor set.

use std::{env, error::Error, fs};

use prost::Message;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    let [_, set, folder] = &env::args().collect::<Vec<_>>()[..] else {
        return Err("needs a descriptor set and a folder".into());
    };
    let mut messages = prost_build::Config::new();
    messages.enable_type_names(); // the details of a status are told apart by them
    tonic_prost_build::configure()
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .generate_default_stubs(true) // a server in a test has only the RPCs that it needs
        .out_dir(folder)
        .compile_fds_with_config(FileDescriptorSet::decode(&*fs::read(set)?)?, messages)?;
    Ok(())
}
