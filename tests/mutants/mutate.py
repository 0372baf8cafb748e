#!/usr/bin/env python3
"""Applies the mutants of headers.toml, one at a time, to copies of the headers, builds the tests named with each
against the copy and runs them: a mutant that passes them survives.

usage: mutate.py [--jobs N] [--known] [--markdown FILE] [WORD...]     WORD: only mutants whose header or text contains one

Ends with 1 where a mutant survives that is not allowed to, one is killed that is said to be harmless, a patch does not
apply exactly once or does not compile, or the tests fail without any mutant. Results stay in build/mutate, and a mutant
is not run again while its tests and all that they include are the same; --known runs none and shows what is known. Needs
Python 3.11, a C++ compiler (CXX) and what the tests need."""
import argparse, concurrent.futures, functools, hashlib, os, pathlib, re, shutil, signal, subprocess, sys, threading, time, tomllib

root = pathlib.Path(__file__).resolve().parents[2]
work = root / "build" / "mutate"
compiler = os.environ.get("CXX", "g++").split()
places = [pathlib.Path(p) for p in ("/usr/include", "/usr/local/include", "/opt/homebrew/include")]
launcher = ["ccache"] if shutil.which("ccache") else []
eigen = os.environ.get("EIGEN") or next((str(p / "eigen3") for p in places if (p / "eigen3").exists()), "")
libraries = ["-pthread"] + (["-lCatch2"] if any((p / "catch2/catch_session.hpp").exists() for p in places) else [])
optional = [o for o in (("unicode/normalizer2.h", "UNROLL_WITH_ICU", "-licuuc"),
                        ("sentencepiece_processor.h", "UNROLL_WITH_SENTENCEPIECE", "-lsentencepiece"))
            if any((p / o[0]).exists() for p in places)]  # a header, what says that it may be used, its library
support = ["tests/support/main.cpp", "tests/estimate/count_allocations.cpp"]
quoted = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
time_limit = 300  # seconds for the tests of one mutant, unless it says hangs_after; one that hangs is killed
passing = ("no end", "ended from outside")  # outcomes that another hour may not have: perhaps the machine was busy, or full


class Failure(Exception):
    pass


class Unknown(Exception):
    """Nobody has run it."""


@functools.cache
def included_by(path):
    """The files of this repository that a file includes, by name."""
    places = (path.parent, root / "include", root)
    found = ([p / name for p in places if (p / name).is_file()] for name in quoted.findall(path.read_text()))
    return [files[0].resolve() for files in found if files]


@functools.cache
def files_of(tests):
    """All files of this repository that the outcome of tests depends on: they and what they include."""
    found, new = set(), [root / "tests" / t for t in tests] + [root / s for s in support]
    while new:
        path = new.pop()
        if path not in found:
            found.add(path)
            new += included_by(path)
    return sorted(found)


@functools.cache
def flags_of(tests):
    """For the compiler, and for the linker: the optional libraries that tests, or what they include, ask for."""
    text = "".join(p.read_text() for p in files_of(tests) if p.suffix in (".cpp", ".hpp"))
    asked = [(definition, library) for _, definition, library in optional if definition in text]
    return ["-D" + definition for definition, _ in asked], [library for _, library in asked]


@functools.cache
def hash_of_files(tests):
    files = files_of(tests)
    names = (str(p.relative_to(root)) for p in files)
    return hash_of(*compiler, *flags_of(tests)[0], *names, *(p.read_bytes() for p in files))


def compile_file(source, include, target, defined=()):
    command = [*launcher, *compiler, "-std=c++20", "-O0", "-w", *defined, f"-I{include}", f"-I{root}"]
    done = subprocess.run([*command, *(["-isystem", eigen] if eigen else []), "-c", str(root / source), "-o", str(target)],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"{source} does not compile:\n" + "\n".join(done.stderr.splitlines()[:8]))


def outcome(tests, include, folder, limit=time_limit):
    """Builds and runs the tests, for `limit` seconds: "" if they pass, else what failed."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = any((root / "tests" / pathlib.Path(t).parts[0] / "count_allocations.cpp").exists() for t in tests)  # as in CMake
    defined, linked_with = flags_of(tuple(tests))
    objects = [work / (pathlib.Path(s).stem + ".o") for s in (support if counts else support[:1])]
    for i, test in enumerate(tests):
        objects.append(folder / f"test{i}.o")
        compile_file("tests/" + test, include, objects[-1], defined)
    program = folder / "test"
    linked = subprocess.run([*compiler, *map(str, objects), "-o", str(program), *libraries, *linked_with],
                            capture_output=True, text=True)
    if linked.returncode != 0:
        raise Failure("does not link:\n" + linked.stderr[:600])
    try:
        ran = subprocess.run([str(program), "--abort"], cwd=folder, capture_output=True, text=True, errors="replace",
                             timeout=limit)
    except subprocess.TimeoutExpired:
        return "no end"
    if ran.returncode == 0:
        return ""
    if -ran.returncode in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
        return "ended from outside"
    between = ran.stdout.split("-" * 79 + "\n")  # Catch: dashes, the name of the test case, dashes
    named = " ".join(between[1].split()) if len(between) > 2 else ""
    return named or (ran.stderr.strip().splitlines() or [f"ended with {ran.returncode}"])[-1]


def hash_of(*texts):
    h = hashlib.sha256()
    for text in texts:
        h.update(text if isinstance(text, bytes) else text.encode())
        h.update(b"\0")
    return h.hexdigest()[:32]


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--jobs", type=int, default=1)
    parse.add_argument("--known", action="store_true", help="run nothing: show the results that are stored")
    parse.add_argument("--markdown", help="write the table to this file")
    parse.add_argument("words", nargs="*")
    options = parse.parse_args()
    mutants = tomllib.loads((root / "tests/mutants/headers.toml").read_text())["mutant"]
    mutants = [m for m in mutants if not options.words or any(w in str(m) for w in options.words)]

    errors, texts = [], {}
    for m in mutants:
        header = root / "include/unroll" / m["header"]
        text = texts[m["header"]] = header.read_text() if header.exists() else ""
        if (found := text.count(m["old"])) != 1:
            errors.append(f'{m["header"]}: "{m["old"]}" is there {found} times, expected once')
        missing = [f'{m["header"]}: no tests/{t}' for t in m["tests"] if not (root / "tests" / t).exists()]
        if not missing and header not in files_of(tuple(m["tests"])):
            missing = [f'{m["header"]}: {", ".join(m["tests"])} do not include it']
        errors += missing
    if not mutants:
        errors.append(f"no mutant matches {options.words}")
    if errors:
        sys.exit("\n".join(errors))

    work.mkdir(parents=True, exist_ok=True)
    if not options.known:
        shutil.rmtree(work / "run", ignore_errors=True)
        for source in support:
            compile_file(source, root / "include", work / (pathlib.Path(source).stem + ".o"))

    def remembered(key, run, lasts=lambda result: result not in passing):
        """The outcome stored under the hash `key`, or that of run(), which is stored if it lasts."""
        place = work / "outcomes" / key
        if place.exists():
            return place.read_text()
        if options.known:
            raise Unknown
        result = run()
        if not lasts(result):
            return result
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        partial.write_text(result)
        partial.replace(place)  # at once: an empty one would say that the tests pass
        return result

    def clean(tests):
        folder = work / "run" / hash_of(*tests)
        failed = remembered(hash_of_files(tests), lambda: outcome(tests, root / "include", folder), lambda result: not result)
        if failed:
            raise Failure(f"{', '.join(tests)} fails without a mutant: {failed}")

    def mutated(m):
        def run():
            copy = work / "run" / hash_of(str(m)) / "include"
            shutil.copytree(root / "include", copy)
            (copy / "unroll" / m["header"]).write_text(texts[m["header"]].replace(m["old"], m["new"]))
            try:
                return outcome(m["tests"], copy, copy.parent, m.get("hangs_after", time_limit))
            finally:
                shutil.rmtree(copy.parent, ignore_errors=True)

        def lasts(result):
            return result not in passing or (result == "no end" and "hangs_after" in m)

        return remembered(hash_of(hash_of_files(tuple(m["tests"])), m["header"], m["old"], m["new"]), run, lasts)

    rows, began = [], time.time()

    def judge(tests, group):
        fails = False  # without a mutant: what fails with one then shows nothing
        try:
            clean(tests)
        except Failure as e:
            fails = True
            errors.append(str(e))
        except Unknown:
            pass
        for m in group:
            patch = f'{m["header"]}: {m["old"].strip()} -> {m["new"].strip() or "nothing"}'
            killer, allowed = "", m.get("allowed")
            try:
                killer = "" if fails else mutated(m)
                word = "FAILED" if fails else "killed" if killer else "allowed" if allowed else "SURVIVED"
                if word == "SURVIVED":
                    errors.append(f"{patch}: survives {', '.join(tests)}")
                if killer and allowed:
                    errors.append(f'{patch}: is killed by "{killer}", but said to be allowed: {allowed}')
            except Failure as e:
                errors.append(f"{patch}: {e}")
                word = "FAILED"
            except Unknown:
                word = "not run"
            rows.append((m, word, killer))
            print(f"{len(rows):3}/{len(mutants)} {time.time() - began:5.0f} s  {word:8}  {patch}", flush=True)

    groups = {}
    for m in mutants:
        groups.setdefault(tuple(m["tests"]), []).append(m)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(judge, groups.keys(), groups.values()))
    order = {id(m): i for i, m in enumerate(mutants)}
    rows.sort(key=lambda row: order[id(row[0])])
    words = [word for _, word, _ in rows]
    total = ", ".join(f"{words.count(w)} {w}" for w in ("killed", "allowed", "SURVIVED", "FAILED", "not run") if w in words)
    print(f"{len(rows)} mutants: {total}")
    if options.markdown:
        write_markdown(pathlib.Path(options.markdown), rows)
    if errors:
        sys.exit("\n" + "\n".join(errors))


def write_markdown(path, rows):
    """Writes the table. A mutant that was not run keeps its row of the table that is there, marked as earlier, or has none."""

    def code(text):
        text = " ".join(text.split()).replace("|", "\\|")
        return f"`{text}`" if text else "(nothing)"

    row = re.compile(r"(\| .* \| (?:`.*`|\(nothing\))) \| (.*?)(?: \(earlier\))? \|")
    before = dict(m.groups() for m in map(row.fullmatch, path.read_text().splitlines()) if m) if path.exists() else {}
    words, table = [], []
    for m, word, killer in rows:
        by = killer.replace("|", "\\|") if killer else f'{word}: {m["allowed"]}' if word == "allowed" else word
        cells = f'| {m["header"]} | {code(m["old"])} | {code(m["new"])}'
        if word == "not run" and before.get(cells, word) not in ("not run", "SURVIVED", "FAILED"):
            verdict = "allowed" if before[cells].startswith("allowed: ") else "killed"
            word, by = f"{verdict} with earlier files", before[cells] + " (earlier)"
        words.append(word)
        if word != "not run":
            table.append(f"{cells} | {by} |")
    total = ", ".join(f"{words.count(w)} {w}" for w in dict.fromkeys(words))
    path.write_text("\n".join([
        "# Mutants of the headers", "",
        "Every row is one change of one header and the test that failed under it: `./run mutate --markdown docs/mutants.md` runs them",
        "and writes this table ([how-to](howto/prove-an-estimator.md#show-that-the-proof-can-fail)). Of a mutant that was not run with the",
        "present files, what killed it with earlier ones stands in its row; those that were never run with a table written have none.", "",
        f"{len(rows)} mutants: {total}.", "", "| header | instead of | stands | killed by |", "|---|---|---|---|", *table]) + "\n")


if __name__ == "__main__":
    main()
