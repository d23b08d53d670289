#!/bin/sh
# Rewrite every generated file. HELM names the helm binary, PYTHON the interpreter with the
# dependencies of operator and server.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
helm=${HELM:-helm}
chart=charts/rerank-operator
export PYTHONPATH=operator:server

"$python" -m rerank_operator crd > manifests/crd.yaml

"$python" tools/reference.py > docs/reference.md

{
    echo '{{- if .Values.crd.install }}'
    cat manifests/crd.yaml
    echo '{{- end }}'
} > $chart/templates/crd.yaml

"$python" tools/values_schema.py $chart/values.yaml > $chart/values.schema.json

{
    echo 'apiVersion: v1'
    echo 'kind: Namespace'
    echo 'metadata:'
    echo '  name: rerank-system'
    "$helm" template rerank-operator $chart --namespace rerank-system --set crd.install=false
} > manifests/operator.yaml

tables=$("$python" tools/server_tables.py docs/server.md)
printf '%s\n' "$tables" > docs/server.md
