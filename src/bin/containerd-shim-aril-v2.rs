#![no_main]

aril::entry!(aril::shim::main);
