{{/* What pods have in common: security, placement, variables, probes. */}}

{{/* On OpenShift, the platform assigns user and groups, and refuses the chart's. */}}
{{- define "tally.podSecurity" -}}
{{- $security := deepCopy .Values.podSecurityContext -}}
{{- range $key, $value := $security -}}
{{- if and (kindIs "slice" $value) (not $value) }}{{ $_ := unset $security $key }}{{ end -}}
{{- end -}}
{{- if .Capabilities.APIVersions.Has "security.openshift.io/v1" -}}
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" -}}
{{- if eq (int (get $security $key)) 65532 }}{{ $_ := unset $security $key }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml $security -}}
{{- end -}}

{{/* The head of a pod's spec. Called with (list $ values-of-the-component "component"); a dict is enough for the values. */}}
{{- define "tally.pod" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
serviceAccountName: {{ include "tally.serviceAccount" $root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "tally.podSecurity" $root | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" }}
{{- with get $own $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with include "tally.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- range $key := list "priorityClassName" "runtimeClassName" "schedulerName" }}
{{- with get $own $key }}
{{ $key }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The component's affinity, with the terms of podAntiAffinity and of a volume that only one node can mount. */}}
{{- define "tally.affinity" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
{{- $component := index . 2 -}}
{{- $affinity := deepCopy (default (dict) $own.affinity) -}}
{{- with $own.podAntiAffinity -}}
{{- $selector := include "tally.selector" (list $root $component) | fromYaml -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $selector) -}}
{{- $terms := dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term) -}}
{{- if eq . "preferred" -}}
{{- $terms = dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term)) -}}
{{- end -}}
{{- $_ := set $affinity "podAntiAffinity" $terms -}}
{{- end -}}
{{- if and (include "tally.isOnOneNode" $root) (ne $component "job") -}}
{{- $selector := omit (include "tally.selector" (list $root $component) | fromYaml) "app.kubernetes.io/component" -}}
{{- $mounting := dict "key" "app.kubernetes.io/component" "operator" "In" "values" (list "coordinator" "worker" "test") -}}
{{- $labels := dict "matchLabels" $selector "matchExpressions" (list $mounting) -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" $labels -}}
{{- $near := default (dict) $affinity.podAffinity -}}
{{- $terms := default (list) (get $near "requiredDuringSchedulingIgnoredDuringExecution") -}}
{{- $_ := set $near "requiredDuringSchedulingIgnoredDuringExecution" (append $terms $term) -}}
{{- $_ := set $affinity "podAffinity" $near -}}
{{- end -}}
{{- with $affinity }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{/* The variables of a server's pod that its flags name. */}}
{{- define "tally.addressEnv" -}}
- name: POD_IP
  valueFrom:
    fieldRef: {fieldPath: status.podIP}
{{- if contains "$(HOST_IP)" .Values.consul.url }}
- name: HOST_IP
  valueFrom:
    fieldRef: {fieldPath: status.hostIP}
{{- end }}
{{- end -}}

{{/* The URL of Consul as a flag, if it has a variable: a settings file has none. */}}
{{- define "tally.consulArg" -}}
{{- if contains "$(" .Values.consul.url }}
- --consul={{ .Values.consul.url }}
{{- end }}
{{- end -}}

{{/* Probes, hooks and security of a server's container. Called with the values of its component. */}}
{{- define "tally.probes" -}}
{{- range $probe, $path := dict "startupProbe" "/healthz" "livenessProbe" "/healthz" "readinessProbe" "/readyz" }}
{{ $probe }}:
  httpGet: {path: {{ $path }}, port: http}
  {{- with get $ $probe }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .lifecycle }}
lifecycle:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The update strategy of the coordinators. Without an election, two coordinators on one journal would conflict. The same holds
while an upgrade changes the election: pods with the old and the new one would each have a leader. */}}
{{- define "tally.coordinatorStrategy" -}}
{{- $own := .Values.coordinator -}}
{{- if $own.strategy -}}
{{- toYaml $own.strategy -}}
{{- else if or (not .Values.consul.url) (include "tally.changesElection" .) -}}
type: Recreate
{{- else -}}
type: RollingUpdate
# With several coordinators one may go first, because each may need a node of its own. A single one is replaced without a gap.
rollingUpdate: {maxUnavailable: {{ ternary 1 0 (gt (int $own.replicas) 1) }}, maxSurge: 1}
{{- end -}}
{{- end -}}

{{/* Not empty if the installed coordinators take part in another election, or in none. Helm looks into the cluster, except when it
only renders. */}}
{{- define "tally.changesElection" -}}
{{- $name := printf "%s-settings" (include "tally.fullname" .) -}}
{{- with lookup "v1" "ConfigMap" .Release.Namespace $name -}}
{{- $keys := "(?m)^consul(-prefix|-namespace|-partition)? = .*$" -}}
{{- $old := regexFindAll $keys (index .data "coordinator.toml") -1 -}}
{{- $new := regexFindAll $keys (include "tally.coordinatorSettings" $) -1 -}}
{{- if ne (join " " $old) (join " " $new) }}yes{{ end -}}
{{- end -}}
{{- end -}}
