"""What a program sees when it changes what is in the image, one line for each thing tried.

Run in a container whose image has /tree (see overlay_exerciser.rs). What it prints must not depend
on how the root is made.
"""

import errno
import hashlib
import mmap
import os
import stat

os.chdir("/tree")


def attempt(what, call):
    try:
        result = call()
    except OSError as error:
        result = errno.errorcode[error.errno]
    print(f"{what}: {result}")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, text, flags=0, at=None):
    fd = os.open(path, os.O_WRONLY | flags)
    if at is not None:
        os.lseek(fd, at, os.SEEK_SET)
    os.write(fd, text)
    os.close(fd)


def about(path):
    s = os.lstat(path)
    attrs = [] if stat.S_ISLNK(s.st_mode) else sorted(os.listxattr(path))
    # Of a folder both are the file system's own affair, and of a merged one there are two.
    size = "" if stat.S_ISDIR(s.st_mode) else f" {s.st_size} {s.st_nlink}"
    return f"{s.st_mode:o} {s.st_uid}:{s.st_gid}{size} {attrs}"


def digest(path):
    return hashlib.sha256(read(path)).hexdigest()[:16]


def tree(path="."):
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(folders + files):
            place = os.path.join(folder, name)
            text = "" if not stat.S_ISREG(os.lstat(place).st_mode) else digest(place)
            print(f"  {place} {about(place)} {text}")


# Copy-up: each way by which a file of the image can first be changed.
for name, change in {
    "append": lambda f: write(f, b"more\n", os.O_APPEND),
    "overwrite": lambda f: write(f, b"LO"),
    "truncate": lambda f: os.truncate(f, 2),
    "open_trunc": lambda f: write(f, b"x", os.O_TRUNC),
    "chmod": lambda f: os.chmod(f, 0o604),
    "chown": lambda f: os.chown(f, 7, 8),
    "utime": lambda f: os.utime(f, ns=(5, 6)),
    "setxattr": lambda f: os.setxattr(f, "user.new", b"new"),
    "removexattr": lambda f: os.removexattr(f, "user.note"),
    "link": lambda f: os.link(f, f + ".again"),
    "rename": lambda f: (os.rename(f, f + ".moved"), os.rename(f + ".moved", f)),
    "only_read": read,
    "suid_write": lambda f: (os.chmod(f, 0o4755), write(f, b"x"))[0],
}.items():
    path = "up/" + name
    before = os.stat(path)
    attempt(name, lambda: (change(path), None)[1])
    after = os.stat(path)
    attempt("  about", lambda: about(path))
    attempt("  text", lambda: read(path))
    attempt("  note", lambda: os.getxattr(path, "user.note"))
    print("  time kept:", before.st_mtime_ns == after.st_mtime_ns)
    print("  inode kept:", before.st_ino == after.st_ino)

# Opened before its copy-up for writing, a file is one.
one, two = os.open("up/both", os.O_RDWR), os.open("up/both", os.O_RDWR)
os.write(one, b"through one")
attempt("both", lambda: os.read(two, 100))

# Whiteouts and opaque folders.
attempt("rmdir full", lambda: os.rmdir("gone"))
attempt("unlink", lambda: os.unlink("gone/file"))
attempt("unlink again", lambda: os.unlink("gone/file"))
attempt("list", lambda: sorted(os.listdir("gone")))
attempt("unlink sub", lambda: os.unlink("gone/sub/file"))
attempt("rmdir sub", lambda: os.rmdir("gone/sub"))
attempt("rmdir", lambda: os.rmdir("gone"))
attempt("stat", lambda: os.stat("gone"))
attempt("mkdir", lambda: os.mkdir("gone"))
attempt("empty", lambda: os.listdir("gone"))
attempt("not through", lambda: os.stat("gone/sub/file"))
attempt("exclusive", lambda: os.close(os.open("gone/file", os.O_CREAT | os.O_EXCL)))
attempt("anew", lambda: about("gone/file"))
attempt("exists", lambda: os.close(os.open("up/chmod", os.O_CREAT | os.O_EXCL)))
attempt("file for folder", lambda: (os.unlink("was_file"), os.mkdir("was_file"))[1])
attempt("folder for file", lambda: (os.rmdir("was_folder"), write("was_folder", b"x", os.O_CREAT))[1])
for number in range(300):
    os.unlink(f"many/{number}")
attempt("many", lambda: (os.listdir("many"), os.rmdir("many"), os.path.lexists("many")))

# Renames.
os.mkdir("new"), write("new/file", b"new", os.O_CREAT)
attempt("over a file", lambda: os.rename("new/file", "rename/a"))
attempt("text", lambda: read("rename/a"))
attempt("away", lambda: (os.rename("rename/b", "new/b"), os.path.lexists("rename/b")))
attempt("back", lambda: (os.rename("new/b", "rename/b"), read("rename/b")))
attempt("file over folder", lambda: os.rename("rename/a", "rename/full"))
attempt("folder over file", lambda: os.rename("new", "rename/a"))
attempt("folder over full one", lambda: os.rename("new", "rename/full"))
attempt("folder over empty one", lambda: os.rename("new", "rename/empty"))
attempt("listed", lambda: sorted(os.listdir("rename")))
attempt("into itself", lambda: os.rename("rename/empty", "rename/empty/inside"))
attempt("symlink", lambda: (os.rename("symlink", "rename/symlink"), os.readlink("rename/symlink")))
attempt("fifo", lambda: (os.rename("fifo", "rename/fifo"), about("rename/fifo")))

# Hard links.
write("links", b"links", os.O_CREAT)
for number in range(50):
    os.link("links", f"links.{number}")
write("links.7", b"LINKS")
attempt("links", lambda: (about("links"), read("links.49")))
attempt("one file", lambda: len({os.stat(f"links.{n}").st_ino for n in range(50)}))
for number in range(50):
    os.unlink(f"links.{number}")
attempt("links", lambda: about("links"))
attempt("of the image", lambda: (os.link("up/link", "again"), os.path.samefile("up/link", "again")))
write("again", b"shared")
attempt("text", lambda: read("up/link.again"))

# An open file stays when its name goes.
fd = os.open("unlinked", os.O_RDWR)
os.unlink("unlinked")
os.write(fd, b"still ")
attempt("unlinked", lambda: (os.pread(fd, 100, 0), os.fstat(fd).st_nlink))

# Attributes: sizes, names, what is refused.
attempt("none", lambda: os.getxattr("links", "user.none"))
attempt("create", lambda: os.setxattr("links", "user.a", b"1", os.XATTR_CREATE))
attempt("create again", lambda: os.setxattr("links", "user.a", b"1", os.XATTR_CREATE))
attempt("replace none", lambda: os.setxattr("links", "user.b", b"1", os.XATTR_REPLACE))
attempt("long", lambda: os.setxattr("links", "user.long", bytes(range(256)) * 8))
attempt("its length", lambda: len(os.getxattr("links", "user.long")))
attempt("empty", lambda: (os.setxattr("links", "user.empty", b""), os.getxattr("links", "user.empty")))
attempt("trusted", lambda: os.setxattr("links", "trusted.x", b"1"))
attempt("list", lambda: sorted(os.listxattr("links")))

# Sparse and large.
sparse = os.open("sparse", os.O_RDWR)
attempt("data at", lambda: os.lseek(sparse, 0, os.SEEK_DATA))
os.pwrite(sparse, b"end", 64 << 20)
attempt("size", lambda: os.fstat(sparse).st_size)
attempt("data at", lambda: os.lseek(sparse, 0, os.SEEK_DATA))
attempt("hole at", lambda: os.lseek(sparse, 9 << 20, os.SEEK_HOLE))
print("holes kept:", os.fstat(sparse).st_blocks < 4096)
attempt("sparse", lambda: digest("sparse"))
attempt("large", lambda: digest("large"))
write("large", b"middle", at=5_000_000)
attempt("large", lambda: digest("large"))
source = os.open("large", os.O_RDONLY)
target = os.open("copy", os.O_CREAT | os.O_RDWR)
while os.copy_file_range(source, target, 1 << 20):
    pass
attempt("copy_file_range", lambda: digest("copy"))
os.lseek(source, 0, os.SEEK_SET)
target = os.open("sent", os.O_CREAT | os.O_RDWR)
while os.sendfile(target, source, None, 1 << 20):
    pass
attempt("sendfile", lambda: digest("sent"))
attempt("fallocate", lambda: (os.posix_fallocate(target, 0, 9 << 20), os.fstat(target).st_size))
attempt("beyond", lambda: os.pwrite(target, b"x", (1 << 63) - 1))

# Syncing.
for place in ["large", "copy", ".", "rename/full"]:
    fd = os.open(place, os.O_RDONLY)
    attempt("fsync " + place, lambda: (os.fsync(fd), os.fdatasync(fd)))
    os.close(fd)

# Memory that is a file.
fd = os.open("mapped", os.O_RDWR)
shared = mmap.mmap(fd, 8192)
private = mmap.mmap(fd, 8192, flags=mmap.MAP_PRIVATE)
private[:4] = b"mine"
if os.fork() == 0:
    shared[4096:4102] = b"shared"
    shared.flush()
    os._exit(0)
os.wait()
attempt("by the map", lambda: shared[4096:4102])
attempt("by read", lambda: (os.pread(fd, 4, 0), read("mapped")[4096:4102]))
os.pwrite(fd, b"written", 100)
attempt("by write", lambda: shared[100:107])
os.truncate("mapped", 4096)
attempt("cut", lambda: len(read("mapped")))

# Listing while removing.
os.mkdir("busy")
for number in range(500):
    os.close(os.open(f"busy/{number}", os.O_CREAT))
with os.scandir("busy") as entries:
    for entry in entries:
        os.unlink(entry.path)
attempt("busy", lambda: os.rmdir("busy"))

attempt("no follow", lambda: os.open("rename/symlink", os.O_NOFOLLOW))
attempt("not a folder", lambda: os.open("links", os.O_DIRECTORY))
attempt("too long", lambda: os.mkdir("n" * 256))
attempt("longest", lambda: os.mkdir("n" * 255))
tree()
