#![no_main]

aril::entry!(aril::cni::main);
