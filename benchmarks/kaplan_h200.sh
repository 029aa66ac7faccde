#!/usr/bin/env bash
# One sitting of `scaling-sim study kaplan-h200` on a machine that starts bare and gives back only what lies in $OUT.
#
#   bash benchmarks/kaplan_h200.sh CARRIED MINUTES [further options of the verb]
#
# CARRIED is a folder that travels with the working tree:
#   english.tar.xz   the text, packed: python -m benchmarks.corpora.build_english --pack CARRIED/english.tar.xz
#   *.whl            wheels that the machine lacks (msgspec)
#   commit           the commit of the code, where the machine gets no .git
#   study.tar.xz, cupy.tar.xz, inductor.tar.xz, triton.tar.xz
#                    what the sitting before left in $OUT: the runs so far and the compiled kernels; copy them here
#
# MINUTES: after these the sitting ends by itself; leave a minute for packing, e.g. 8.7 of 10.
# $OUT receives outcome.json, log.txt, sittings.jsonl, kaplan-h200.jsonl.xz (the data file) and the four archives above.
set -uo pipefail

carried=$(realpath "$1") minutes=$2
shift 2
out=${OUT:?set OUT to the folder for results} place=${KAPLAN_PLACE:-/tmp/kaplan}
study=$place/study text=$place/english caches=$place/caches
largest=$((16 * 1024 * 1024))
mkdir -p "$out" "$study" "$caches" "$place/site"

export PYTHONPATH=$PWD:$PWD/backends:$place/site PYTHONUNBUFFERED=1 OMP_NUM_THREADS=4
export SCALING_SIM_CACHE=$caches CUPY_CACHE_DIR=$caches/cupy
export TORCHINDUCTOR_COMPILE_THREADS=4 # of each process that compiles; there are four
if [ -s "$carried/commit" ]; then
    SCALING_SIM_COMMIT=$(cat "$carried/commit")
    export SCALING_SIM_COMMIT
fi

unpack() { # ARCHIVE FOLDER: where there is one
    if [ -f "$carried/$1" ]; then tar -C "$2" -xf "$carried/$1" && echo "restored $1"; fi
}

prepare() {
    if compgen -G "$carried/*.whl" >/dev/null && ! python3 -c "import msgspec" 2>/dev/null; then
        python3 -m pip install -q --no-index --no-deps --no-compile --target "$place/site" "$carried"/*.whl || return 1
    fi
    [ -f "$study/runs.sqlite" ] || unpack study.tar.xz "$study"
    for name in cupy inductor triton; do
        [ -d "$caches/$name" ] || unpack "$name.tar.xz" "$caches"
    done
    [ -d "$text/train" ] || python3 -m benchmarks.corpora.build_english --unpack "$carried/english.tar.xz" --out "$text"
}

keep() { # NAME FOLDER FILES...: pack files of FOLDER that there are, if the archive is small enough to come back
    local archive=$place/$1.tar.xz folder=$2 found=()
    shift 2
    for file in "$@"; do [ -e "$folder/$file" ] && found+=("$file"); done
    [ ${#found[@]} -gt 0 ] || return 0
    XZ_OPT="-3 -T0" tar -C "$folder" -cJf "$archive" "${found[@]}" || return 0
    if [ "$(stat -c %s "$archive")" -lt $largest ]; then cp "$archive" "$out/"; else echo "$archive is too large to keep"; fi
}

keep_all() {
    cp "$study"/sittings.jsonl "$study"/*.jsonl.xz "$out/" 2>/dev/null
    keep study "$study" runs.sqlite runs.sqlite-wal sittings.jsonl corpora.json experiment.json rates.json
    for name in cupy inductor triton; do keep "$name" "$caches" "$name"; done
}

prepare || exit 1
trap keep_all EXIT
began=$SECONDS
python3 -m scaling_sim.cli study kaplan-h200 --out "$study" --corpus "$text" --sitting "$minutes" --json "$@" \
    >"$out/outcome.json" 2> >(tee "$out/log.txt" >&2)
status=$?
echo "the study took $((SECONDS - began)) s and ended with $status"
exit $status
