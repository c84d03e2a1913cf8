{{/* What all pods have in common. They pass the Pod Security Standard "restricted". */}}

{{/* {root, component}: podDefaults, overlaid with the component's own `pod`; as YAML. */}}
{{- define "lockstep.podSettings" -}}
{{- $own := dict -}}
{{- if hasKey .root.Values .component }}{{ $own = (index .root.Values .component).pod | default dict }}{{ end -}}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.podDefaults) (deepCopy $own)) -}}
{{- end }}

{{/* {root, component}: labels and annotations of a pod. */}}
{{- define "lockstep.podMetadata" -}}
{{- $pod := fromYaml (include "lockstep.podSettings" .) -}}
labels:
  {{- include "lockstep.labels" . | nindent 2 }}
  {{- with $pod.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $pod.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "lockstep.podSecurity" -}}
{{- $fixed := dict "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- toYaml (mergeOverwrite $fixed (deepCopy .)) -}}
{{- end }}

{{- define "lockstep.containerSecurity" -}}
{{- $fixed := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- toYaml (mergeOverwrite $fixed (deepCopy .)) -}}
{{- end }}

{{/* {root, component}: the part of a pod's spec that does not depend on what runs in it. */}}
{{- define "lockstep.podSpec" -}}
{{- $pod := fromYaml (include "lockstep.podSettings" .) -}}
enableServiceLinks: false
securityContext:
  {{- include "lockstep.podSecurity" $pod.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if kindIs "slice" $pod.topologySpread }}
{{- with $pod.topologySpread }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- else if and (eq $pod.topologySpread "auto") (eq .root.Values.profile "production") (has .component (list "frontend" "owner" "operator")) }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "lockstep.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* {root, component}: the part of a container of ours that does not depend on its command. */}}
{{- define "lockstep.container" -}}
{{- $pod := fromYaml (include "lockstep.podSettings" .) -}}
image: {{ include "lockstep.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- include "lockstep.containerSecurity" $pod.containerSecurityContext | nindent 2 }}
resources:
  {{- include "lockstep.resources" . | nindent 2 }}
{{- end }}

{{/* {root, component}: resources that were given, or those of the profile. */}}
{{- define "lockstep.resources" -}}
{{- $pod := fromYaml (include "lockstep.podSettings" .) -}}
{{- $profile := index (fromYaml (include "lockstep.profiles" .root)) .root.Values.profile -}}
{{- toYaml ($pod.resources | default (index $profile .component "resources")) -}}
{{- end }}

{{/* {root, component}: variables that somebody added. */}}
{{- define "lockstep.extraEnv" -}}
{{- with (fromYaml (include "lockstep.podSettings" .)).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The root: how the stores and the cluster are reached; the same for owners and front ends. */}}
{{- define "lockstep.clusterEnv" -}}
- name: LOCKSTEP_CLUSTER__NAME
  value: {{ include "lockstep.clusterName" . | quote }}
- name: LOCKSTEP_PARTITIONS
  value: {{ .Values.owner.partitions | quote }}
- name: LOCKSTEP_CLUSTER__LEASE_TTL_MS
  value: {{ mul 1000 .Values.owner.lease.ttlSeconds | quote }}
{{ include "lockstep.etcdEnv" . }}
- name: LOCKSTEP_LOG_FORMAT
  value: json
- name: LOCKSTEP_LOG_LEVEL
  value: {{ .Values.log.level }}
- name: GRPC_VERBOSITY
  value: NONE
{{- range $key, $value := .Values.settings }}
- name: LOCKSTEP_{{ $key | replace "." "__" | upper }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- define "lockstep.etcdEnv" -}}
- name: LOCKSTEP_CLUSTER__ETCD_ENDPOINTS
  value: {{ include "lockstep.etcdEndpoints" . | quote }}
{{- if eq (include "lockstep.etcdMode" .) "external" }}
{{- $etcd := .Values.etcd.external }}
{{- with $etcd.existingSecret }}
- name: LOCKSTEP_CLUSTER__ETCD_USER
  valueFrom: {secretKeyRef: {name: {{ . }}, key: username}}
- name: LOCKSTEP_CLUSTER__ETCD_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}
{{- end }}
{{- if $etcd.tls.enabled }}
- name: LOCKSTEP_CLUSTER__ETCD_TRANSPORT
  value: tls
{{- if $etcd.tls.existingSecret }}
- name: LOCKSTEP_CLUSTER__ETCD_CA_FILE
  value: /etc/lockstep/etcd/ca.crt
{{- if $etcd.tls.clientCertificate }}
- name: LOCKSTEP_CLUSTER__ETCD_CERTIFICATE_FILE
  value: /etc/lockstep/etcd/tls.crt
- name: LOCKSTEP_CLUSTER__ETCD_KEY_FILE
  value: /etc/lockstep/etcd/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "lockstep.wantsEtcdFiles" -}}
{{- and (eq (include "lockstep.etcdMode" .) "external") .Values.etcd.external.tls.enabled (ne .Values.etcd.external.tls.existingSecret "") -}}
{{- end }}

{{- define "lockstep.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if eq (include "lockstep.wantsEtcdFiles" .) "true" }}
- name: etcd-tls
  mountPath: /etc/lockstep/etcd
  readOnly: true
{{- end }}
{{- end }}

{{- define "lockstep.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 16Mi}
{{- if eq (include "lockstep.wantsEtcdFiles" .) "true" }}
- name: etcd-tls
  secret:
    secretName: {{ .Values.etcd.external.tls.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{/*
Probes of owners and front ends, over HTTP on a port of their own: they work whatever the data port speaks, and are
answered by a thread that a busy event loop does not hold up. Liveness asks for neither etcd nor PostgreSQL.
*/}}
{{- define "lockstep.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}
