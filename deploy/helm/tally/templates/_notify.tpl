{{/* Notices of jobs: settings, secrets and checks of the coordinators. */}}
{{- define "tally.notifySettings" -}}
{{- with .Values.notifications }}
{{- with .webhook.url }}
notify-url = {{ . | quote }}
{{- end }}
{{- if .webhook.tokenSecret.name }}
notify-token-file = "/etc/tally/notify/webhook/token"
{{- end }}
{{- with .openlineage.url }}
openlineage-url = {{ . | quote }}
{{- end }}
openlineage-namespace = {{ .openlineage.namespace | quote }}
{{- if .openlineage.tokenSecret.name }}
openlineage-token-file = "/etc/tally/notify/openlineage/token"
{{- end }}
{{- if .caSecret.name }}
notify-ca-file = "/etc/tally/notify/ca/ca.pem"
{{- end }}
{{- end }}
{{- end -}}

{{- define "tally.notifyVolumes" -}}
{{- range $name, $receiver := dict "webhook" .Values.notifications.webhook "openlineage" .Values.notifications.openlineage }}
{{- with $receiver.tokenSecret }}
{{- if .name }}
- name: notify-{{ $name }}
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: token
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.notifications.caSecret }}
{{- if .name }}
- name: notify-ca
  secret:
    secretName: {{ .name | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: ca.pem
{{- end }}
{{- end }}
{{- end -}}

{{- define "tally.notifyMounts" -}}
{{- with .Values.notifications }}
{{- if .webhook.tokenSecret.name }}
- {name: notify-webhook, mountPath: /etc/tally/notify/webhook, readOnly: true}
{{- end }}
{{- if .openlineage.tokenSecret.name }}
- {name: notify-openlineage, mountPath: /etc/tally/notify/openlineage, readOnly: true}
{{- end }}
{{- if .caSecret.name }}
- {name: notify-ca, mountPath: /etc/tally/notify/ca, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* A URL with a secret comes from an environment variable of coordinator.extraEnv. */}}
{{- define "tally.checkNotifications" -}}
{{- $variables := list -}}
{{- range .Values.coordinator.extraEnv }}{{ $variables = append $variables .name }}{{ end -}}
{{- range $name, $variable := dict "webhook" "TALLY_NOTIFY_URL" "openlineage" "TALLY_OPENLINEAGE_URL" -}}
{{- $receiver := get $.Values.notifications $name -}}
{{- if and $receiver.tokenSecret.name (not $receiver.url) (not (has $variable $variables)) -}}
{{- fail (printf "notifications.%s.tokenSecret is set, and notifications.%s.url is empty: set it, or remove the secret" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
