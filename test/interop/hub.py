"""Python's own client, one action a run: python3 hub.py ACTION REPO PATH. Prints one JSON object."""

import json
import os
import sys

from huggingface_hub import HfApi, hf_hub_download, scan_cache_dir, snapshot_download

action, repo, path = sys.argv[1:4]

if action == "offline":
    # what somebody else's cache holds, with no network
    print(json.dumps({"path": snapshot_download(repo, local_files_only=True)}))
elif action == "download":
    print(json.dumps({"path": snapshot_download(repo)}))
elif action == "file":
    print(json.dumps({"path": hf_hub_download(repo, path)}))
elif action == "local":
    print(json.dumps({"path": snapshot_download(repo, local_dir=path)}))
elif action == "scan":
    info = scan_cache_dir()
    repos = {r.repo_id: sorted([v.commit_hash, sorted(v.refs), v.nb_files] for v in r.revisions) for r in info.repos}
    print(json.dumps({"repos": repos, "warnings": [str(w) for w in info.warnings], "size": info.size_on_disk}))
elif action == "upload":
    api = HfApi()
    api.create_repo(repo, exist_ok=True)
    done = api.upload_folder(repo_id=repo, folder_path=path)
    print(json.dumps({"commit": done.oid}))
elif action == "list":
    api = HfApi()
    info = api.model_info(repo)
    files = {f.path: [f.size, f.lfs.sha256 if f.lfs else f.blob_id] for f in api.list_repo_tree(repo, recursive=True)}
    paths = [p.path for p in api.get_paths_info(repo, list(files))]
    print(json.dumps({"sha": info.sha, "files": files, "paths": sorted(paths), "user": api.whoami()["name"]}))
