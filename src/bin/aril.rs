#![no_main]

aril::entry!(aril::cli::main);
