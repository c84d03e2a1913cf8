#!/usr/bin/env bash
# Builds the image, and installs the chart with it on a kind or minikube cluster of this machine.
#
#   helm/up.sh image|kind|minikube IMAGE
#
# KIND_CLUSTER, MINIKUBE_PROFILE, NAMESPACE and RELEASE name what is used; the chart's own values may follow in HELM_ARGS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode=${1:-} image=${2:-lockstep:dev}
namespace=${NAMESPACE:-lockstep} release=${RELEASE:-lockstep}
cluster=${KIND_CLUSTER:-lockstep} profile=${MINIKUBE_PROFILE:-lockstep}

fail() { printf '%s\n' "$*" >&2; exit 1; }

need() { # need COMMAND WHERE: refuse to begin what cannot end
  command -v "$1" >/dev/null || fail "$1 is not on PATH. Install it first: $2"
}

find_engine() { # the first of docker and podman that answers
  local one
  for one in docker podman; do
    if command -v "$one" >/dev/null && "$one" info >/dev/null 2>&1; then echo "$one"; return; fi
  done
  fail "Neither docker nor podman answers here. Install one of them, or start it, and try again."
}

build() {
  local args=(-t "$image" --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -1)") name
  for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do
    [ -z "${!name:-}" ] || args+=(--build-arg "$name")
  done
  "$engine" build "${args[@]}" .
}

install() { # install CONTEXT: from what the engine has loaded; podman keeps images without a registry under localhost/
  local name=${image%:*} tag=${image##*:} registry=docker.io repository
  repository=$name
  case $name in
    */*) registry=${name%%/*} repository=${name#*/} ;;
    *) if [ "$engine" = podman ]; then registry=localhost; else repository=library/$name; fi ;;
  esac
  # shellcheck disable=SC2086 # HELM_ARGS is a list of words
  helm upgrade --install "$release" helm/lockstep --kube-context "$1" --namespace "$namespace" --create-namespace \
    --set profile=kind --set image.registry="$registry" --set image.repository="$repository" --set image.tag="$tag" \
    --wait --timeout 5m ${HELM_ARGS:-}
}

case $mode in
  image)
    engine=$(find_engine)
    build
    ;;
  kind)
    need kind https://kind.sigs.k8s.io
    need helm https://helm.sh
    need kubectl https://kubernetes.io/docs/tasks/tools
    engine=$(find_engine)
    [ "$engine" != podman ] || export KIND_EXPERIMENTAL_PROVIDER=podman
    build
    kind get clusters | grep -qx "$cluster" || kind create cluster --name "$cluster" --wait 120s
    if [ "$engine" = docker ]; then
      kind load docker-image "$image" --name "$cluster"
    else
      archive=$(mktemp -d)/image.tar
      podman save -o "$archive" "$image" && kind load image-archive "$archive" --name "$cluster"
      rm -rf "$(dirname "$archive")"
    fi
    install "kind-$cluster"
    ;;
  minikube)
    need minikube https://minikube.sigs.k8s.io
    need helm https://helm.sh
    need kubectl https://kubernetes.io/docs/tasks/tools
    engine=$(find_engine)
    build
    minikube status --profile "$profile" >/dev/null 2>&1 || minikube start --profile "$profile"
    archive=$(mktemp -d)/image.tar
    "$engine" save -o "$archive" "$image"
    minikube image load "$archive" --profile "$profile"
    rm -rf "$(dirname "$archive")"
    install "$profile"
    ;;
  *) fail "Say what to do: $0 image|kind|minikube IMAGE" ;;
esac
