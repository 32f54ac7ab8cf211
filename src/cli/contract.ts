/** What scripts can rely on: exit statuses, and the environment variables that are read. */

export const EXIT_STATUSES: Readonly<Record<0 | 1 | 2 | 3 | 4 | 5 | 70, string>> = {
  0: "the command did its work; a verification ended with `same` or `within`",
  1: "a check failed; a verification ended with `different` or `unproven`",
  2: "wrong usage, or a plan that cannot be carried out",
  3: "the input is damaged, unsafe or not supported",
  4: "a failure of the file system, the network or the Hub",
  5: "interrupted; `--resume` continues a conversion",
  70: "an error in isologit itself",
};

export const ENVIRONMENT: Readonly<Record<string, string>> = {
  ISOLOGIT_BACKEND: "default of `--backend`",
  ISOLOGIT_MEMORY: "default of `--memory`",
  HF_TOKEN: "access token of the Hub; default of `--token`",
  HF_ENDPOINT: "address of the Hub, if it is not https://huggingface.co",
  HF_HOME: "folder of the Hub's files on this machine (default: ~/.cache/huggingface)",
  HF_HUB_CACHE: "folder of the Hub cache (default: `hub` in HF_HOME)",
  HF_HUB_OFFLINE: "1: use only what is in the Hub cache",
  SIGSTORE_ID_TOKEN: "default of `--identity-token`",
  NO_COLOR: "set and not empty: no colours",
  CI: "set and not `false`: no progress bar",
  GITHUB_STEP_SUMMARY: "file to which `--report md=FILE` also appends its text",
};
