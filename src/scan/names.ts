/** Names that pickles and configs pass to loaders, and how dangerous each name is. */
import type { Severity } from "../core/finding.ts";

/** Modules that start programs, evaluate text, load code, or use the network or the file system. */
const DANGEROUS_MODULES = [
  ...[
    "os",
    "posix",
    "nt",
    "posixpath",
    "ntpath",
    "shutil",
    "subprocess",
    "pty",
    "platform",
    "commands",
    "popen2",
  ],
  ...[
    "sys",
    "runpy",
    "imp",
    "importlib",
    "pkgutil",
    "pydoc",
    "code",
    "codeop",
    "timeit",
    "bdb",
    "pdb",
    "cProfile",
  ],
  ...[
    "profile",
    "trace",
    "ctypes",
    "_ctypes",
    "cffi",
    "marshal",
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
  ],
  ...[
    "joblib",
    "shelve",
    "socket",
    "ssl",
    "http",
    "urllib",
    "urllib2",
    "requests",
    "ftplib",
    "smtplib",
    "telnetlib",
  ],
  ...[
    "xmlrpc",
    "webbrowser",
    "asyncio",
    "multiprocessing",
    "threading",
    "_thread",
    "concurrent",
    "signal",
    "atexit",
  ],
  ...[
    "tempfile",
    "pathlib.os",
    "io",
    "_io",
    "fileinput",
    "glob",
    "types.FunctionType",
    "types.CodeType",
    "operator",
  ],
  ...[
    "_operator",
    "functools",
    "itertools",
    "inspect",
    "gc",
    "zipimport",
    "pip",
    "setuptools",
    "distutils",
    "venv",
  ],
  ...[
    "idlelib",
    "lib2to3",
    "torch.hub",
    "torch.utils.cpp_extension",
    "torch.jit",
    "torch.load",
    "torch.storage._load_from_bytes",
  ],
  ...["torch.serialization.load", "torch.serialization.os", "numpy.testing", "numpy.f2py", "numpy.load"],
] as const;

/** Members of `builtins` that run code or lead to code. The pickle reader lists the harmless members. */
const DANGEROUS_BUILTINS = [
  ...[
    "eval",
    "exec",
    "compile",
    "open",
    "execfile",
    "file",
    "input",
    "__import__",
    "breakpoint",
    "getattr",
    "setattr",
  ],
  ...["delattr", "globals", "locals", "vars", "map", "filter", "apply", "reload", "help", "exit", "quit"],
];

/** Whether a file can run its own code with a name. @param name dotted */
export function isDangerous(name: string): boolean {
  const [module, member] = [name.slice(0, name.indexOf(".")), name.slice(name.indexOf(".") + 1)];
  if (module === "builtins" || module === "__builtin__")
    return DANGEROUS_BUILTINS.includes(member.split(".")[0]!);
  // a harmless module may import `os`, which its members then reach
  if (
    /\.(os|sys|subprocess|builtins|__builtins__|__globals__|__class__|__subclasses__|__import__)(\.|$)/.test(
      name,
    )
  )
    return true;
  return DANGEROUS_MODULES.some((known) => name === known || name.startsWith(`${known}.`));
}

interface GlobalRisk {
  readonly rule: "pickle-danger" | "pickle-call" | "pickle-import";
  readonly severity: Severity;
  readonly what: string;
}

/** The action of a plain unpickler for a name that this reader does not list. */
export function riskOfGlobal(name: string, called: boolean): GlobalRisk {
  const what = called ? `would run ${name}` : `would import ${name}`;
  if (isDangerous(name)) return { rule: "pickle-danger", severity: "danger", what };
  if (called || name.startsWith("copyreg.extension_"))
    return { rule: "pickle-call", severity: "error", what };
  return { rule: "pickle-import", severity: "warning", what };
}
