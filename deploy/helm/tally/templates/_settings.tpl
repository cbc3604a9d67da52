{{/* The settings files. Each key is a long option of the program. */}}
{{- define "tally.coordinatorSettings" -}}
# All addresses, IPv6 and IPv4.
listen = ":{{ .Values.coordinator.service.port }}"
http-listen = ":{{ .Values.coordinator.httpPort }}"
http-host = {{ include "tally.httpHosts" . }}
state-dir = {{ include "tally.stateDir" . | quote }}
max-jobs = {{ .Values.coordinator.maxJobs }}
history = {{ .Values.coordinator.history }}
no-workers-timeout = "{{ int .Values.coordinator.noWorkersTimeoutSeconds }}s"
{{- include "tally.tlsSettings" (list . "coordinator") }}
{{- include "tally.traceSettings" . }}
{{- include "tally.notifySettings" . }}
{{ include "tally.consulSettings" . }}
{{- end -}}

{{/* Host names by which clients reach the HTTP API in plain text: those of ingress, gateway and services. Names that end with
.svc need no setting. */}}
{{- define "tally.httpHosts" -}}
{{- $hosts := list -}}
{{- range $suffix := list "web" "coordinator-metrics" -}}
{{- $hosts = append $hosts (printf "%s-%s.%s" (include "tally.fullname" $) $suffix $.Release.Namespace) -}}
{{- end -}}
{{- with .Values.ingress }}{{ if and .enabled .host }}{{ $hosts = append $hosts .host }}{{ end }}{{ end -}}
{{- with .Values.gateway }}{{ if .enabled }}{{ $hosts = concat $hosts .hostnames }}{{ end }}{{ end -}}
{{- toJson (uniq $hosts) -}}
{{- end -}}

{{- define "tally.workerSettings" -}}
# All addresses, IPv6 and IPv4.
listen = ":{{ .Values.worker.port }}"
http-listen = ":{{ .Values.worker.httpPort }}"
slots = {{ .Values.worker.slots }}
memory-limit = "{{ div (mul (int .Values.worker.memoryMiB) 3) 4 }}MiB"
spill-dir = "/spill"
spill-limit = "{{ mul (int .Values.worker.spillGiB) 921 }}MiB"
drain-timeout = "{{ int .Values.worker.drainTimeoutSeconds }}s"
{{- include "tally.tlsSettings" (list . "worker") }}
{{- include "tally.traceSettings" . }}
{{- if not .Values.consul.url }}
coordinator = [{{ include "tally.coordinator" . | quote }}]
{{- end }}
{{ include "tally.consulSettings" . }}
{{- end -}}

{{- define "tally.traceSettings" -}}
{{- with .Values.traces.endpoint }}
otlp-endpoint = {{ . | quote }}
{{- end }}
{{- end -}}
