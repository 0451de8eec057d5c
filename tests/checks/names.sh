#!/bin/bash
# The protocol has one set of names. The model's messages, steps, stages and states are the code's; and the stages that the tests end a
# rank at are those of core/stage.h, all of them: a stage that is new there, and tested nowhere, fails here.
#   names.sh <source tree>
set -euo pipefail
cd "$1"
model=tests/model/migration.pml
failed=0

# same WHAT NAMES NAMES: two lists of words are the same set
same() {
    local difference
    difference=$(diff <(sort -u <<<"$2") <(sort -u <<<"$3")) || {
        echo "FAILED: $1 differ, in the code (<) and there (>):"
        grep '^[<>]' <<<"$difference"
        failed=1
    }
}
# known WHAT NAMES NAMES: each of the latter is one of the former
known() {
    local unknown
    unknown=$(comm -13 <(sort -u <<<"$2") <(sort -u <<<"$3"))
    [ -z "$unknown" ] || {
        echo "FAILED: $1 of $model that the code does not have: $unknown"
        failed=1
    }
}
# code PREFIX FILE: the names that begin so, without that
code() { grep -oE "\b$1[A-Z_]+" "$2" | sed "s/^$1//"; }
# mtype FIRST: the list of the model's that begins with this name
mtype() { grep -oE "^mtype = \{$1[^}]*" $model | sed 's/.*{//' | tr -d ' ' | tr ',' '\n'; }
# defined FROM TO: what the model defines between two of its comments
defined() { sed -n "/$1/,/$2/p" $model | grep -oE '^#define [A-Z_]+' | sed 's/#define //'; }

stages=$(code ISO_STAGE_ core/stage.h | grep -vxE 'NONE|COUNT')
[ "$(wc -l <<<"$stages")" -ge 10 ] || { echo "FAILED: only these stages, it seems: $stages"; exit 1; }
same "stages of core/stage.h and tests/ranks/stages.sh" "$stages" \
    "$(grep -oE 'for stage in [a-z_ ]+' tests/ranks/stages.sh | sed 's/for stage in//' | tr ' ' '\n' | grep . | tr a-z A-Z)"
same "stages of core/stage.h and tests/ranks/stages.cpp" "$stages" \
    "$(sed -n '/_stages\[\] = {/,/};/p' tests/ranks/stages.cpp | grep -oE '"[a-z_]+"' | tr -d '"' | tr a-z A-Z)"

known messages "$(code ISO_MSG_ core/wire.h)" "$(mtype RESERVE)"
known statuses "$(code ISO_ERR_ include/isomalloc/isomalloc.h)" "$(mtype INVALID)"
known steps "$(code ISO_STEP_ core/migrate.h)" "$(defined iso_step_t iso_incoming_step_t | grep -vx NO_REQUEST)"
known "steps of an arrival" "$(code ISO_INCOMING_ core/arrive.h)" "$(defined iso_incoming_step_t iso_left_state_t)"
known "states of what was left" "$(code ISO_LEFT_ core/left.h; echo REVOKED)" "$(grep -oE '^#define LEFT_[A-Z]+' $model | sed 's/.*LEFT_//')"
known "states of the node's word" "$(code WORD_ core/node.c)" "$(grep -oE '^#define WORD_[A-Z]+' $model | sed 's/.*WORD_//')"
# two are the model's own (tests/model/README.md)
known stages "$stages" "$(mtype RUNNING | grep -vxE 'RUNNING|DECLINED|RELEASING')"
exit $failed
